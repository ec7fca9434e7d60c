"""Products by oneDNN against torch's own: values, gradients, layouts, and what is left to torch."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perank_tasks.models import products
from perank_tasks.models.products import Linear, Matrix, linear, replace_linears


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_this_torch_has_them() -> None:
    assert products.AVAILABLE


@settings(deadline=None, max_examples=40)
@given(
    rows=st.sampled_from([(0,), (1,), (3,), (64,), (1000,), (2, 5), (0, 7), (3, 1, 2)]),
    k=st.integers(1, 70),
    n=st.integers(1, 70),
    has_bias=st.booleans(),
    seed=st.integers(0, 9),
)
def test_values_are_those_of_torch(
    rows: tuple[int, ...], k: int, n: int, has_bias: bool, seed: int
) -> None:
    x, weight = drawn(*rows, k, seed=seed), drawn(n, k, seed=seed + 1)
    bias = drawn(n, seed=seed + 2) if has_bias else None
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    for found in (Matrix(weight, bias)(x), linear(x, weight, bias)):
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * k)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (3, 40), (2, 3, 4)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_gradients_are_those_of_torch(shape: tuple[int, ...], has_bias: bool) -> None:
    found, expected = [], []
    for product, gradients in ((linear, found), (F.linear, expected)):
        x = drawn(*shape, 24).requires_grad_()
        weight = drawn(17, 24, seed=1).requires_grad_()
        bias = drawn(17, seed=2).requires_grad_() if has_bias else None
        (product(x, weight, bias) * drawn(*shape, 17, seed=3)).sum().backward()
        gradients += [t.grad for t in (x, weight, bias) if t is not None]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_gradients_of_what_does_not_learn_are_not_made() -> None:
    x, weight = drawn(4, 8).requires_grad_(), drawn(6, 8, seed=1)
    linear(x, weight).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_layouts_of_any_kind_are_read_as_they_are() -> None:
    x, weight = drawn(30, 50).T[::2, 3:], drawn(27, 40, seed=1).T[1:33, ::1]
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_equal_rows_get_equal_results() -> None:
    x = drawn(1, 64).expand(33, 64).contiguous()
    for found in (linear(x, drawn(48, 64, seed=1)), Matrix(drawn(48, 64, seed=1))(x)):
        assert (found == found[0]).all()


def test_a_matrix_keeps_what_it_was_made_of() -> None:
    weight = drawn(8, 16)
    matrix, x = Matrix(weight), drawn(3, 16, seed=1)
    before = matrix(x)
    weight.zero_()
    assert torch.equal(matrix(x), before)
    assert matrix.elements == 128


@pytest.mark.parametrize(("n", "k"), [(0, 5), (5, 0)])
def test_a_weight_without_values_is_one_too(n: int, k: int) -> None:
    x, weight, bias = drawn(3, k), drawn(n, k), drawn(n)
    for found in (linear(x, weight, bias), Matrix(weight, bias)(x)):
        assert torch.equal(found, F.linear(x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [None, drawn(9, seed=2)])
def test_a_matrix_can_be_copied_and_pickled(dtype: torch.dtype, bias: Tensor | None) -> None:
    matrix = Matrix(drawn(9, 16).to(dtype), None if bias is None else bias.to(dtype))
    x = drawn(5, 16, seed=1).to(dtype)
    for copied in (copy.deepcopy(matrix), pickle.loads(pickle.dumps(matrix))):
        assert torch.equal(copied(x), matrix(x))
        assert copied.elements == matrix.elements


def test_gradients_of_gradients_are_refused_and_not_wrong() -> None:
    x, weight = drawn(3, 16).requires_grad_(), drawn(9, 16, seed=1)
    (gradient,) = torch.autograd.grad((linear(x, weight) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_torchs(dtype: torch.dtype) -> None:
    x, weight = drawn(5, 16).to(dtype), drawn(9, 16, seed=1).to(dtype)
    for found in (linear(x, weight), Matrix(weight)(x)):
        assert torch.equal(found, F.linear(x, weight))


def test_autocast_is_torchs() -> None:
    x, weight = drawn(5, 16), drawn(9, 16, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("freeze", [False, True])
def test_replacing_keeps_parameters_modes_and_names(freeze: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 6, bias=False)))
    model.eval()
    names, x = dict(model.named_parameters()), drawn(3, 4)
    expected = model(x)
    replace_linears(model, freeze=freeze)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [Linear, Linear]
    assert not any(m.training for m in model.modules())
    after = dict(model.named_parameters())
    assert after.keys() == names.keys()
    assert all(after[name] is names[name] for name in names)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("shape", [(1, 7, 64), (3, 5, 64), (1, 1, 64), (9, 64), (64,)])
def test_frozen_weights_change_no_bit(shape: tuple[int, ...]) -> None:
    layer, frozen = nn.Sequential(nn.Linear(64, 48)), nn.Sequential(nn.Linear(64, 48))
    frozen.load_state_dict(layer.state_dict())
    replace_linears(layer)
    replace_linears(frozen, freeze=True)
    x = drawn(*shape)
    with torch.inference_mode():
        # A row by itself is summed as one of several; unfrozen, it may be summed otherwise.
        several = x.reshape(-1, 64).expand(2, 64) if x.numel() == 64 else x
        expected = layer(several)[:1].reshape(*shape[:-1], 48) if x.numel() == 64 else layer(x)
        assert torch.equal(frozen(x), expected)


def test_replacing_keeps_hooks_and_weights_that_are_made_anew() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.utils.weight_norm(nn.Linear(5, 6)))
    seen: list[int] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    x = drawn(3, 4)
    expected = model(x)
    replace_linears(model)
    torch.testing.assert_close(model(x), expected)
    assert [type(layer) for layer in model] == [Linear, Linear]
    assert len(seen) == 2
