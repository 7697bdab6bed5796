"""How this computer multiplies: what is measured of it."""

import torch

from multipress.precision import BlockRates, autocast, block_rates, route


def test_a_block_is_measured_in_this_process_and_leaves_it_as_it_was():
    threads, dtype = torch.get_num_threads(), torch.get_autocast_dtype("cpu")
    rates = block_rates(rows=2, tokens=4, width=64)
    assert isinstance(rates, BlockRates)
    assert 0 < rates.train < 1e16
    assert 0 < rates.teach < 1e16
    assert 0 < rates.read < 1e16
    assert 0 < rates.update < 1e-3
    assert (torch.get_num_threads(), torch.get_autocast_dtype("cpu")) == (threads, dtype)


def test_a_block_is_computed_by_the_route(both_products):
    with autocast(route()):
        found = torch.nn.Linear(8, 8)(torch.ones(2, 8))
    assert found.dtype == (torch.bfloat16 if route() == "bf16" else torch.float32)
    assert block_rates(rows=1, tokens=2, width=32).train > 0
