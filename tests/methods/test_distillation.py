"""Distillation: its losses against scipy and transformers' hidden states, its limits, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.linear_model import Ridge
from torch import nn
from transformers import BertForSequenceClassification

from multipress.errors import SettingError
from multipress.methods import Context, Step
from multipress.methods.distillation import FIT_RIDGE, PROJECTION, Distillation, distillation_loss
from multipress.models import read_first_token_only
from tiny import bert_config


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
    method = Distillation(alpha=0.25, loss="mse", hidden=0.0)
    method.prepare(nn.Identity(), Context(teacher_logits=teacher))
    rows, logits = torch.tensor([7, 2]), torch.randn(2, 3)
    loss = method.compute_loss(torch.tensor(2.0), Step(nn.Identity(), rows, rows, logits, 0.0))
    expected = 0.75 * 2.0 + 0.25 * (logits - teacher[[7, 2]]).square().mean()
    assert loss.item() == pytest.approx(expected.item())


def test_a_missing_teacher_and_kl_on_a_number_are_refused():
    with pytest.raises(SettingError, match="teacher"):
        Distillation().prepare(nn.Identity(), Context())
    with pytest.raises(SettingError, match="mse"):
        Distillation(loss="kl", hidden=0.0).prepare(
            nn.Identity(), Context(target="number", teacher_logits=torch.zeros(2, 1))
        )


@pytest.mark.parametrize(("target", "kind"), [("classes", "kl"), ("number", "mse")])
def test_the_loss_suits_the_target_by_itself(target, kind):
    teacher, logits = torch.randn(4, 3), torch.randn(2, 3)
    method = Distillation(alpha=1.0, hidden=0.0)
    method.prepare(nn.Identity(), Context(target=target, teacher_logits=teacher))
    rows = torch.tensor([3, 1])
    loss = method.compute_loss(torch.tensor(9.0), Step(nn.Identity(), rows, rows, logits, 0.0))
    assert loss.item() == pytest.approx(distillation_loss(logits, teacher[[3, 1]], kind, method.temperature).item())


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0.0, "hidden": 0.0}, {"states": "word"}, {"alpha": 2.0}, {"temperature": 0.0}, {"loss": "cosine"}],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SettingError):
        Distillation(**settings)


def classifier(layers, hidden, seed=0):
    torch.manual_seed(seed)
    config = bert_config(20, num_hidden_layers=layers, hidden_size=hidden, num_labels=3)
    model = BertForSequenceClassification(config).eval()  # no dropout
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def inputs():
    """Two rows, the second with two tokens of padding; the mask as the loop gives it."""
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    hidden = (1 - real[:, None, None, :]).float() * torch.finfo(torch.float32).min
    return {
        "input_ids": torch.randint(5, 25, (2, 5)),
        "token_type_ids": torch.zeros_like(real),
        "attention_mask": hidden,
    }


def step_of(model, batch):
    logits = model(**batch).logits
    return Step(model, torch.tensor([0, 1]), torch.tensor([0, 1]), logits, 0.0, batch)


def hidden_method(student, teacher, **settings):
    method = Distillation(alpha=0.0, hidden=1.0, **{"states": "token", **settings})
    batches = [inputs() | {"rows": torch.tensor([0, 1])}]
    method.prepare(student, Context(teacher_model=teacher, first_batches=lambda: batches))
    return method


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize(
    ("layers", "teacher_layers", "settings", "chosen"),
    [
        (2, 4, {}, [0, 2, 4]),
        (3, 3, {}, [0, 1, 2, 3]),
        (2, 4, {"layers": "last"}, [0, 3, 4]),
        (3, 2, {"layers": "last"}, [0, 1, 1, 2]),
    ],
)
def test_hidden_states_are_compared_layer_by_layer_over_real_tokens(layers, teacher_layers, settings, chosen):
    """Against transformers' own hidden states, token by token."""
    student, teacher = classifier(layers, 32), classifier(teacher_layers, 32, seed=1)
    method, batch = hidden_method(student, teacher, **settings), inputs()
    loss = method.compute_loss(torch.tensor(5.0), step_of(student, batch))
    ours = student(**batch, output_hidden_states=True).hidden_states
    theirs = teacher(**batch, output_hidden_states=True).hidden_states
    real = [(0, t) for t in range(5)] + [(1, t) for t in range(3)]
    expected = []
    for layer, other in enumerate(chosen):
        far = sum(((ours[layer][b, t] - theirs[other][b, t]) ** 2).sum().item() for b, t in real)
        expected.append(far / sum((theirs[other][b, t] ** 2).sum().item() for b, t in real))
    assert loss.item() == pytest.approx(5.0 + np.mean(expected), rel=1e-5)  # alpha is 0: the labels count in full


def text_method(student, teacher_states, **settings):
    method = Distillation(alpha=0.0, hidden=1.0, **settings)
    method.prepare(student, Context(teacher_states=teacher_states))
    return method


@pytest.mark.parametrize("shortened", [True, False])
@pytest.mark.parametrize(("settings", "chosen"), [({}, [0, 2, 4]), ({"layers": "last"}, [0, 3, 4])])
def test_hidden_states_of_whole_texts_are_means_over_real_tokens_and_last_the_first_token(settings, chosen, shortened):
    """Against transformers' own hidden states, row by row; the teacher's come by the rows' numbers."""
    student, batch = classifier(2, 32), inputs()
    states = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1)).half()
    ours = student(**batch, output_hidden_states=True).hidden_states
    run = read_first_token_only(classifier(2, 32)) if shortened else student
    method = text_method(run, states, **settings)
    rows = torch.tensor([2, 0])
    loss = method.compute_loss(torch.tensor(5.0), replace(step_of(run, batch), rows=rows))
    expected = []
    for layer, other in enumerate(chosen):
        wanted = states[rows, other].float()
        first, second = ours[layer]
        mine = torch.stack([first[0], second[0]] if layer == 2 else [first.mean(0), second[:3].mean(0)])
        expected.append(((mine - wanted) ** 2).sum().item() / (wanted**2).sum().item())
    assert loss.item() == pytest.approx(5.0 + np.mean(expected), rel=1e-5)


def test_hidden_states_of_whole_texts_of_another_width_are_learned():
    student, batch = classifier(2, 16), inputs()
    method = Distillation(alpha=0.0, hidden=1.0)
    batches = [batch | {"rows": torch.tensor([0, 1])}]
    method.prepare(student, Context(teacher_states=torch.randn(2, 4, 32), first_batches=lambda: batches))
    assert student.distillation_projection.weight.shape == (32, 16)
    loss = method.compute_loss(torch.tensor(0.0), step_of(student, batch))
    assert loss.item() < 0.9  # a fit on these very texts; nothing would be 1
    loss.backward()
    assert all(p.grad is not None for n, p in student.bert.named_parameters() if "pooler" not in n)
    method.convert(student)
    assert not hasattr(student, PROJECTION)
    assert not any(module._forward_hooks for module in student.modules())


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize("states", ["token", "text"])
def test_between_widths_stands_the_best_linear_fit_on_the_first_batches(states):
    """Against scikit-learn's ridge regression on transformers' own hidden states."""
    student, teacher = classifier(2, 16), classifier(2, 32, seed=1)
    batches = [inputs() | {"rows": torch.tensor([0, 1])}, inputs() | {"rows": torch.tensor([2, 3])}]
    with torch.no_grad():
        by_model = [
            [model(**_without_rows(batch), output_hidden_states=True).hidden_states for batch in batches]
            for model in (student, teacher)
        ]
    if states == "token":
        real = [(0, t) for t in range(5)] + [(1, t) for t in range(3)]
        ours, theirs = (
            np.stack([layer[place] for layers in of for layer in layers for place in real]) for of in by_model
        )
        context = Context(teacher_model=teacher)
    else:
        vectors = [
            np.stack(
                [np.stack([_text_vector(layers, layer, row) for layer in range(3)]) for layers in of for row in (0, 1)]
            )
            for of in by_model
        ]  # (4, 3, D) each
        ours, theirs = (of.reshape(12, -1) for of in vectors)
        context = Context(teacher_states=torch.from_numpy(vectors[1]))
    context.first_batches = lambda: batches
    Distillation(alpha=0.0, hidden=1.0, states=states).prepare(student, context)
    ridge = Ridge(alpha=FIT_RIDGE * (ours**2).sum(0).mean(), fit_intercept=False).fit(ours, theirs)
    assert getattr(student, PROJECTION).weight.detach().numpy() == pytest.approx(ridge.coef_, abs=1e-3)


def _without_rows(batch):
    return {key: value for key, value in batch.items() if key != "rows"}


def _text_vector(layers, layer, row):
    """The mean over the row's tokens, of the last layer the first token's state."""
    return layers[layer][row, 0].numpy() if layer == 2 else layers[layer][row, : (5, 3)[row]].mean(0).numpy()


@pytest.mark.usefixtures("in_floats")
def test_a_student_equal_to_its_teacher_is_no_distance_away_from_it():
    student, teacher = classifier(2, 32), classifier(2, 32)
    loss = hidden_method(student, teacher).compute_loss(torch.tensor(0.0), step_of(student, inputs()))
    assert loss.item() == 0.0


def test_the_shortened_last_block_is_compared_at_its_first_token():
    student, teacher, batch = classifier(2, 32), classifier(2, 32, seed=1), inputs()
    loss = hidden_method(student, teacher).compute_loss(torch.tensor(0.0), step_of(student, batch))
    short = read_first_token_only(classifier(2, 32))
    same = hidden_method(short, teacher).compute_loss(torch.tensor(0.0), step_of(short, batch))
    ours = student(**batch, output_hidden_states=True).hidden_states[-1]
    theirs = teacher(**batch, output_hidden_states=True).hidden_states[-1]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])[:, :, None]
    whole = ((ours - theirs).square() * mask).sum() / (theirs.square() * mask).sum()
    first = (ours - theirs)[:, 0].square().sum() / theirs[:, 0].square().sum()
    assert same.item() == pytest.approx((loss - whole / 3 + first / 3).item(), rel=1e-4)


def test_another_width_is_bridged_by_a_matrix_that_learns_and_then_goes():
    student, teacher = classifier(2, 16), classifier(2, 32, seed=1)
    before = [name for name, _ in student.named_parameters()]
    method, batch = hidden_method(student, teacher), inputs()
    matrix = student.distillation_projection.weight
    assert matrix.shape == (32, 16)
    method.compute_loss(torch.tensor(0.0), step_of(student, batch)).backward()
    assert matrix.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(p.grad is not None for n, p in student.bert.named_parameters() if "pooler" not in n)
    method.convert(student)
    assert [name for name, _ in student.named_parameters()] == before
    hooked = [module for model in (student, teacher) for module in model.modules() if module._forward_hooks]
    assert hooked == []


def test_hidden_states_without_the_teacher_itself_are_refused():
    with pytest.raises(SettingError, match="teacher"):
        Distillation(hidden=1.0).prepare(nn.Identity(), Context(teacher_logits=torch.zeros(2, 3)))
    with pytest.raises(SettingError, match="teacher"):
        Distillation(hidden=1.0, states="token").prepare(nn.Identity(), Context(teacher_logits=torch.zeros(2, 3)))
