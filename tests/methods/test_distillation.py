"""Distillation: the loss against scipy, its limits, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

from multipress.errors import SettingError
from multipress.methods import Context, Step
from multipress.methods.distillation import Distillation, distillation_loss


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_is_the_mean_divergence_times_the_squared_temperature(temperature):
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(2, 6, 5))
    expected = np.mean(
        [entropy(softmax(t / temperature), softmax(s / temperature)) for s, t in zip(student, teacher, strict=True)]
    )
    loss = distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher), "kl", temperature)
    assert loss.item() == pytest.approx(expected * temperature**2)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(loss):
    logits = torch.randn(4, 3, requires_grad=True)
    value = distillation_loss(logits, logits.detach().clone(), loss, 2.0)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_alpha_mixes_labels_and_teacher_and_rows_choose_the_logits():
    teacher = torch.randn(10, 3)
    method = Distillation(alpha=0.25, loss="mse")
    method.prepare(nn.Identity(), Context(teacher_logits=teacher))
    rows, logits = torch.tensor([7, 2]), torch.randn(2, 3)
    loss = method.compute_loss(torch.tensor(2.0), Step(nn.Identity(), rows, rows, logits, 0.0))
    expected = 0.75 * 2.0 + 0.25 * (logits - teacher[[7, 2]]).square().mean()
    assert loss.item() == pytest.approx(expected.item())


def test_a_missing_teacher_and_kl_on_a_number_are_refused():
    with pytest.raises(SettingError, match="teacher"):
        Distillation().prepare(nn.Identity(), Context())
    with pytest.raises(SettingError, match="mse"):
        Distillation().prepare(nn.Identity(), Context(target="number", teacher_logits=torch.zeros(2, 1)))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 2.0}, {"temperature": 0.0}, {"loss": "cosine"}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingError):
        Distillation(**settings)
