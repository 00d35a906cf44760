"""On torch, the penalty's gradient is added in place; in every mode it is right."""

import keras
import numpy as np
import pytest

from keras_l2reg import L1L2, L2, L2AllWeights, Scaled
from keras_l2reg._total_penalty import total_penalty

if keras.backend.backend() != "torch":
    pytest.skip("torch's own autograd", allow_module_level=True)

import torch

STRENGTH = 0.3
# Summed in rows, in rows and a remainder, and at once.
SHAPES = (256, 128), (150, 151), (3, 4)


@pytest.fixture
def weights():
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def loss(weights, penalty=None):
    """A loss of data whose gradient is `cos(w)`, and the penalty."""
    penalty = penalty or L2(STRENGTH)
    return sum(torch.sin(w).sum() for w in weights) + penalty(*weights)


def as_float64(tensor):
    return tensor.detach().double().numpy()


def expected(w, strength=STRENGTH):
    w = as_float64(w)
    return np.cos(w) + 2 * strength * w


def plain(weights):
    loss(weights).backward()
    return [w.grad for w in weights]


def scaled(weights):
    (1024.0 * loss(weights)).backward()
    return [w.grad / 1024 for w in weights]


def accumulated(weights):
    for _ in range(3):
        loss(weights).backward()
    return [w.grad / 3 for w in weights]


def accumulated_in_zeros(weights):
    for w in weights:
        w.grad = torch.zeros_like(w)
    return plain(weights)


def retained(weights):
    total = loss(weights)
    total.backward(retain_graph=True)
    total.backward()
    return [w.grad / 2 for w in weights]


def retained_and_reset(weights):
    total = loss(weights)
    total.backward(retain_graph=True)
    for w in weights:
        w.grad = None
    total.backward()
    return [w.grad for w in weights]


def functional(weights):
    return torch.autograd.grad(loss(weights), weights)


def with_a_graph(weights):
    with pytest.warns(UserWarning, match="reference cycle"):
        loss(weights).backward(create_graph=True)
    found = [w.grad for w in weights]
    for w in weights:
        w.grad = None
    total = sum(gradient.sum() for gradient in found)
    for w, second in zip(weights, torch.autograd.grad(total, weights), strict=True):
        by_hand = 2 * STRENGTH - np.sin(as_float64(w))
        np.testing.assert_allclose(as_float64(second), by_hand, atol=1e-6)
    return found


def to_inputs(weights):
    first, *rest = weights
    loss(weights).backward(inputs=[first])
    assert all(w.grad is None for w in rest)
    loss(weights).backward(inputs=rest)
    return [w.grad for w in weights]


def seen_by_hooks(weights):
    seen = {}
    for i, w in enumerate(weights):
        w.register_hook(lambda gradient, i=i: seen.update({i: gradient.clone()}))
    loss(weights).backward()
    return [seen[i] for i in range(len(weights))]


def seen_after_accumulation(weights):
    seen = {}
    for w in weights:
        w.register_post_accumulate_grad_hook(
            lambda w: seen.update({id(w): w.grad.clone()})
        )
    loss(weights).backward()
    return [seen[id(w)] for w in weights]


def checkpointed(weights):
    torch.utils.checkpoint.checkpoint(
        lambda *w: loss(w), *weights, use_reentrant=True
    ).backward()
    return [w.grad for w in weights]


def saved_elsewhere(weights):
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda tensor: tensor):
        total = loss(weights)
    total.backward()
    return [w.grad for w in weights]


def of_a_copy(weights):
    loss([1.0 * w for w in weights]).backward()
    return [w.grad for w in weights]


def one_by_one(weights):
    total = sum(torch.sin(w).sum() for w in weights)
    sum([L2(STRENGTH)(w) for w in weights], total).backward()
    return [w.grad for w in weights]


def in_two_terms(weights):
    (loss(weights, L2(0.1)) + L2(0.2)(*weights)).backward()
    return [w.grad for w in weights]


def live(weights):
    loss(weights, L2(keras.Variable(STRENGTH))).backward()
    return [w.grad for w in weights]


MODES = (
    plain,
    scaled,
    accumulated,
    accumulated_in_zeros,
    retained,
    retained_and_reset,
    functional,
    with_a_graph,
    to_inputs,
    seen_by_hooks,
    seen_after_accumulation,
    checkpointed,
    saved_elsewhere,
    of_a_copy,
    one_by_one,
    in_two_terms,
    live,
)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_the_gradient_is_that_of_data_and_penalty(mode, weights):
    found = mode(weights)
    for gradient, w in zip(found, weights, strict=True):
        np.testing.assert_allclose(
            as_float64(gradient), expected(w), rtol=1e-6, atol=1e-6
        )


def test_a_weight_without_a_gradient_of_data_gets_that_of_the_penalty(weights):
    (torch.sin(weights[0]).sum() + L2(STRENGTH)(*weights)).backward()
    np.testing.assert_allclose(
        as_float64(weights[0].grad), expected(weights[0]), atol=1e-6
    )
    for w in weights[1:]:
        np.testing.assert_allclose(
            as_float64(w.grad), 2 * STRENGTH * as_float64(w), rtol=1e-6
        )


def test_a_weight_that_is_penalized_twice(weights):
    w = weights[1]
    (torch.sin(w).sum() + L2(STRENGTH)(w, w)).backward()
    np.testing.assert_allclose(as_float64(w.grad), expected(w, 2 * STRENGTH), atol=1e-6)


def test_a_frozen_weight_gets_no_gradient(weights):
    weights[1].requires_grad_(False)
    loss(weights).backward()
    assert weights[1].grad is None
    for w in (weights[0], weights[2]):
        np.testing.assert_allclose(as_float64(w.grad), expected(w), atol=1e-6)


def test_gradients_that_share_their_memory():
    # torch hands the two views of one gradient on as they are.
    a = torch.nn.Parameter(torch.randn(300, 100))
    b = torch.nn.Parameter(torch.randn(100, 300))
    both = torch.sin(a.view(-1) + b.view(-1)).sum()
    both.backward(retain_graph=True)
    assert a.grad.data_ptr() == b.grad.data_ptr()
    a.grad = b.grad = None
    (both + L2(STRENGTH)(a, b)).backward()
    data = np.cos(as_float64(a).ravel() + as_float64(b).ravel())
    for w in (a, b):
        by_hand = data.reshape(w.shape) + 2 * STRENGTH * as_float64(w)
        np.testing.assert_allclose(as_float64(w.grad), by_hand, atol=1e-6)


def test_gradients_in_a_buffer_of_the_user_stay_there(weights):
    buffer = torch.zeros(sum(w.numel() for w in weights))
    parts = buffer.split([w.numel() for w in weights])
    for w, part in zip(weights, parts, strict=True):
        w.grad = part.view(w.shape)
    loss(weights).backward()
    by_hand = np.concatenate([expected(w).ravel() for w in weights])
    np.testing.assert_allclose(as_float64(buffer), by_hand, atol=1e-6)


def test_processes_exchange_the_gradient_with_that_of_the_penalty(weights):
    exchanged = []

    def exchange(_, bucket):
        exchanged.append(as_float64(bucket.buffer()).copy())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        module = torch.nn.Module()
        module.weights = torch.nn.ParameterList(weights)
        module.forward = lambda: loss([*module.weights])
        parallel = torch.nn.parallel.DistributedDataParallel(module)
        parallel.register_comm_hook(None, exchange)
        parallel().backward()
    finally:
        torch.distributed.destroy_process_group()
    by_hand = np.concatenate([expected(w).ravel() for w in weights])
    found = np.sort(np.concatenate(exchanged))
    np.testing.assert_allclose(found, np.sort(by_hand), atol=1e-6)


def test_a_sparse_gradient_becomes_dense():
    w = torch.nn.Parameter(torch.randn(200, 100))
    rows = torch.nn.functional.embedding(torch.tensor([3, 3]), w, sparse=True)
    (rows.sum() + L2(STRENGTH)(w)).backward()
    by_hand = 2 * STRENGTH * as_float64(w)
    by_hand[3] += 2
    np.testing.assert_allclose(as_float64(w.grad.to_dense()), by_hand, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_dtypes(dtype):
    w = torch.nn.Parameter(torch.randn(150, 151).to(dtype))
    loss([w]).backward()
    assert w.grad.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 0.02
    np.testing.assert_allclose(as_float64(w.grad), expected(w), atol=tolerance)


def test_a_weight_of_which_a_part_is_seen():
    w = torch.nn.Parameter(torch.randn(150, 151).t())
    assert not w.is_contiguous()
    loss([w]).backward()
    np.testing.assert_allclose(as_float64(w.grad), expected(w), atol=1e-6)


def test_weights_that_change_during_the_backward_pass_raise(weights):
    def step(*_):
        with torch.no_grad():
            weights[0].sub_(1.0)

    # torch does not show this hook.
    node = weights[0].expand_as(weights[0]).grad_fn.next_functions[0][0]
    node.register_hook(step)
    total = loss(weights)
    with pytest.raises(RuntimeError, match="register_post_accumulate_grad_hook"):
        total.backward()


def trained_like(model, x, y):
    """The gradients of a model's kernels by `backward` of its whole loss."""
    model.zero_grad()
    model.compute_loss(x, y, model(x)).backward()
    return [v.value.grad for v in model.trainable_variables]


def test_all_penalties_of_a_model_together():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((200,)),
            keras.layers.Dense(150, "tanh", name="a"),
            keras.layers.Dense(120, name="b"),
            keras.layers.Dense(3, name="c"),
        ]
    )
    x, y = torch.randn(8, 200), torch.randn(8, 3)
    model.compile("sgd", "mse")
    data = [as_float64(g) for g in trained_like(model, x, y)]
    wrapped = L2AllWeights(model, l2=0.1, l1=0.01, multipliers={"b/*": 0.5})
    wrapped.compile("sgd", "mse")
    found = trained_like(wrapped, x, y)
    factors = {"a": 1.0, "b": 0.5, "c": 1.0}
    for v, gradient, of_data in zip(
        wrapped.trainable_variables, found, data, strict=True
    ):
        w, factor = as_float64(v.value), factors[v.path.split("/")[-2]]
        by_hand = of_data + (v.name == "kernel") * factor * (
            0.2 * w + 0.01 * np.sign(w)
        )
        np.testing.assert_allclose(as_float64(gradient), by_hand, atol=1e-6)


def big_variables(count, regularizer):
    variables = [keras.Variable(np.ones((300, 256), "float32")) for _ in range(count)]
    for variable in variables:
        variable.regularizer = regularizer
    return variables


@pytest.mark.parametrize("regularizer", [L2(0.1), Scaled(L2(0.1), 2.0)])
def test_the_penalty_allocates_less_than_a_weight(regularizer):
    variables = big_variables(4, regularizer)
    data = sum(torch.sin(v.value).sum() for v in variables)
    data.backward(retain_graph=True)
    with profiled() as of_data:
        for v in variables:
            v.value.grad = None
        data.backward(retain_graph=True)
    for v in variables:
        v.value.grad = None
    with profiled() as of_both:
        (data + total_penalty(variables)).backward()
    assert allocated(of_both) - allocated(of_data) < 300 * 256 * 4
    # One for each weight, though they are added by one call.
    assert calls(of_both, "aten::addcmul_") == 4
    assert calls(of_both, "aten::_foreach_addcmul_") == 1
    assert calls(of_both, "aten::linalg_vector_norm") == 4
    assert calls(of_both, "aten::square") == 1


def test_l1_leaves_the_gradient_of_l2_in_place(weights):
    with profiled() as found:
        loss(weights, L1L2(0.2, STRENGTH)).backward()
    assert calls(found, "aten::_foreach_addcmul_") == 1
    for w in weights:
        by_hand = expected(w) + 0.2 * np.sign(as_float64(w))
        np.testing.assert_allclose(as_float64(w.grad), by_hand, atol=1e-6)


def profiled():
    activities = [torch.profiler.ProfilerActivity.CPU]
    return torch.profiler.profile(activities=activities, profile_memory=True)


def calls(profile, name):
    return sum(event.name == name for event in profile.events())


def allocated(profile):
    return sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
