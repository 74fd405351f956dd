"""The networks of Table 3 and their batch-norm statistics."""

import copy

import pytest
import torch
from infosink.training.latent import LatentSpace
from infosink.training.networks import Networks, inference_copy, recompute_running_statistics, running_statistics_kept
from torch import nn

SPACE = LatentSpace(categories=10, styles=2, noise=88)


@pytest.fixture
def networks() -> Networks:
    torch.manual_seed(0)
    return Networks((1, 32, 32), SPACE, code_outputs=SPACE.informative)


def linear_sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_image_networks_have_the_layers_of_table_3(networks):
    latents = SPACE.draw(4, torch.Generator().manual_seed(0))
    assert latents.shape == (4, 100)
    images = networks.generator(latents)
    assert images.shape == (4, 1, 32, 32)
    assert images.abs().max() <= 1
    features = networks.trunk(images)
    assert features.shape == (4, 1024)
    assert networks.potential(features).shape == networks.self_potential(features).shape == (4, 1)
    assert networks.code_head(features).shape == (4, 12)
    assert linear_sizes(networks.generator) == [(100, 1024), (1024, 8192)]
    assert linear_sizes(networks.trunk) == [(8192, 1024)]
    assert linear_sizes(networks.code_head) == [(1024, 128), (128, 12)]
    convolutions = [m for m in networks.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride) for c in convolutions] == [
        (128, 64, (4, 4), (2, 2)),
        (64, 1, (4, 4), (2, 2)),
        (1, 64, (4, 4), (2, 2)),
        (64, 128, (4, 4), (2, 2)),
    ]


def test_point_networks_have_the_layers_of_table_3():
    space = LatentSpace(categories=25, styles=0, noise=103)
    networks = Networks((2,), space, code_outputs=space.informative)
    latents = space.draw(4, torch.Generator().manual_seed(0))
    assert networks.code_head(networks.trunk(networks.generator(latents))).shape == (4, 25)
    assert linear_sizes(networks.generator) == [(128, 512), (512, 512), (512, 512), (512, 2)]
    assert linear_sizes(networks.trunk) == [(2, 512), (512, 512)]
    assert linear_sizes(networks.potential) == [(512, 512), (512, 1)]
    assert not any(isinstance(m, nn.BatchNorm1d) for m in networks.generator.modules())


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="32x32, not 28x28"):
        Networks((1, 28, 28), SPACE, code_outputs=SPACE.informative)


def test_the_prior_is_one_hot_by_uniform_by_normal():
    latents = SPACE.draw(20_000, torch.Generator().manual_seed(1))
    category, style, noise = latents.split([10, 2, 88], dim=1)
    assert set(category.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(category.sum(1), torch.ones(20_000))
    torch.testing.assert_close(category.mean(0), torch.full((10,), 0.1), atol=0.01, rtol=0)
    assert -1 <= style.min() < -0.99 < 0.99 < style.max() <= 1
    assert style.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(SPACE.category_of(latents), category.argmax(1))


def test_kept_statistics_do_not_follow_a_pass_and_then_follow_again(networks):
    before = copy.deepcopy(dict(networks.named_buffers()))
    images = torch.rand(8, 1, 32, 32)
    with running_statistics_kept(networks.trunk):
        kept = networks.trunk(images)
    assert all(torch.equal(buffer, before[name]) for name, buffer in networks.named_buffers())
    torch.testing.assert_close(networks.trunk(images), kept)  # normalised by the batch either way
    assert not torch.equal(networks.trunk[1].running_mean, before["trunk.1.running_mean"])


def test_recomputed_statistics_are_those_of_the_data(networks):
    batches = [torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in range(5)]
    for _ in range(3):
        networks.trunk(torch.rand(16, 1, 32, 32) * 0.1)  # leaves statistics of something else
    recompute_running_statistics(networks.trunk, batches)
    first = networks.trunk[0](torch.cat(batches))
    torch.testing.assert_close(networks.trunk[1].running_mean, first.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(networks.trunk[1].running_var, first.var((0, 2, 3)), atol=1e-4, rtol=1e-2)
    assert networks.trunk[1].momentum == 0.1
    assert networks.trunk.training


@pytest.mark.parametrize("averaging", [False, True])
def test_an_inference_copy_leaves_training_alone_and_treats_each_image_alone(averaging):
    """It gives for a sample by itself what its networks give inside the batch that the statistics are of."""
    torch.manual_seed(0)
    networks = Networks((1, 32, 32), SPACE, code_outputs=SPACE.informative, averaging=averaging)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        networks.generator[0].weight.mul_(3)  # the average lags behind
    images, latents = torch.rand(64, 1, 32, 32, generator=random), SPACE.draw(64, random)
    before = copy.deepcopy(networks.state_dict())
    copied = inference_copy(networks, samples=[images], latents=[latents])
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks.state_dict().items())
    assert networks.training
    assert not copied.training
    read, trained_read = (nn.Sequential(each.trunk, each.code_head) for each in (copied, networks))
    for module, trained, batch in (
        (copied.sampling_generator, networks.sampling_generator, latents),
        (read, trained_read, images),
    ):
        together = module(batch)
        torch.testing.assert_close(together, trained(batch), atol=0.05, rtol=0)
        alone = torch.cat([module(batch[i : i + 1]) for i in range(16)])
        torch.testing.assert_close(together[:16], alone, atol=2e-5, rtol=0)


def test_the_average_moves_by_its_decay_and_copies_buffers():
    networks = Networks((1, 32, 32), SPACE, code_outputs=SPACE.informative, averaging=True)
    average, generator = networks.averaged_generator, networks.generator
    assert average is not None
    assert networks.sampling_generator is average
    with torch.no_grad():
        generator(SPACE.draw(8, torch.Generator().manual_seed(0)))
        for weight in generator.parameters():
            weight.add_(1.0)
    networks.average_generator(0.75)
    for averaged_weight, weight in zip(average.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(weight - averaged_weight, torch.full_like(weight, 0.75), atol=1e-5, rtol=0)
    assert generator[1].num_batches_tracked == 1
    assert all(torch.equal(a, b) for a, b in zip(average.buffers(), generator.buffers(), strict=True))
