"""Uni-3DAR as a codec: files, prefixes, refusals, a short training and its samples."""

import pytest
import torch

from laconic.artifact import Artifact
from laconic.errors import BudgetError, MediaError
from laconic.fit import Trainer
from laconic.fit.find import find_fit
from laconic.fit.settings import parse
from laconic.media.points import Points, load_points, psnr
from laconic.methods.codecs.uni_3dar.method import Uni3DAR
from laconic.methods.codecs.uni_3dar.shapes import molecule

SMALL = {"width": "48", "heads": "2", "depth": "2", "batch_size": "8", "log_every": "1"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("a") / "uni.safetensors"
    made = Trainer(parse(find_fit("uni_3dar"), {**SMALL, "steps": "2"}), None, None, None, lambda line: None).run()
    made.save(path)
    return str(path)


@pytest.fixture(scope="module")
def cloud():
    at, kinds = molecule(8)
    return Points(tuple("CNOS"[kind] for kind in kinds), at)


def test_a_cloud_comes_back_from_its_codes(artifact, cloud, tmp_path):
    method = Uni3DAR(artifact=artifact)
    codes = method.encode(cloud)
    assert codes.alphabet == 255 + 4 * 512 and codes.shape == (len(cloud), 3)
    codes.save(tmp_path / "x.codes")
    back = method.decode(type(codes).load(tmp_path / "x.codes"))
    assert sorted(back.names) == sorted(cloud.names) and method.quality(back, cloud) > 30
    rough = method.quality(method.decode(codes.first(len(codes) // 2)), cloud)
    assert method.quality(method.decode(codes.first(2)), cloud) < rough < method.quality(back, cloud)
    assert set(method.decode(codes.first(3)).names) == {"X"}
    assert len(Uni3DAR(artifact=artifact, keep=0.5).encode(cloud)) == len(codes) // 2
    with pytest.raises(BudgetError, match=f"there are {len(codes)}"):
        method.encode(cloud, len(codes) + 1)


def test_other_media_are_refused(artifact, cloud):
    method = Uni3DAR(artifact=artifact)
    with pytest.raises(MediaError, match="'Xe' is no kind"):
        method.encode(Points(("Xe",), torch.zeros(1, 3)))
    with pytest.raises(MediaError, match="not str"):
        method.encode("C 0 0 0")
    with pytest.raises(MediaError, match="no images"):
        _ = method.size


def test_a_short_training_lowers_the_loss_and_gives_samples():
    fit = parse(find_fit("uni_3dar"), {**SMALL, "steps": "40", "lr": "0.003"})
    torch.manual_seed(0)
    net = fit.build(None, None)
    optimizer, seen = fit.optimizer(net), []
    for step in range(30):
        loss = fit.loss(fit.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert sum(seen[-5:]) < 0.8 * sum(seen[:5]) and "bits a structure" in fit.progress()
    method = Uni3DAR()
    made = Artifact.of("uni_3dar", "trained", None, fit.facts(), dict(net.state_dict()))
    method._loaded = made.restore(method.build(made)), made.digest
    one, two = method.sample(3, most=4000), method.sample(3, most=4000)
    assert one is None or (torch.equal(one.at, two.at) and one.names == two.names and set(one.names) <= set("CNOS"))
    assert method.sample(3, most=2) is None


def test_training_on_files(tmp_path, cloud):
    cloud.save(tmp_path / "a.xyz")
    fit = parse(find_fit("uni_3dar"), {**SMALL, "steps": "1", "data": str(tmp_path)})
    fit.build(None, None)
    assert fit.facts()["names"] == sorted(set(cloud.names)) and fit.batch(0).types.shape[0] == 8
    assert torch.equal(fit.batch(0).types, fit.batch(0).types) and fit.progress()
    with pytest.raises(MediaError, match="holds no"):
        parse(find_fit("uni_3dar"), {**SMALL, "data": str(tmp_path / "none")}).build(None, None)
    with pytest.raises(ValueError, match="molecules or shells"):
        parse(find_fit("uni_3dar"), {"shapes": "proteins"})


def test_psnr_of_clouds():
    a = Points(("C", "C"), torch.tensor([[0.0, 0, 0], [10.0, 0, 0]]))
    assert psnr(a, a) == float("inf")
    assert psnr(Points(("C",), torch.tensor([[0.0, 0, 0]])), a) == pytest.approx(10 * torch.log10(torch.tensor(2.0)).item())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no XYZ file"),
        ("two\n\nC 0 0 0\n", "no XYZ file"),
        ("2\n\nC 0 0 0\n", "says 2 points and has 1"),
        ("1\n\nC 0 0\n", "line 3"),
        ("1\n\nC 0 0 x\n", "line 3"),
        ("1\n\nC 0 0 inf\n", "finite"),
        ("0\n\n\n", "at least one"),
    ],
)
def test_files_that_are_wrong_are_refused(tmp_path, text, message):
    (tmp_path / "x.xyz").write_text(text)
    with pytest.raises(MediaError, match=message):
        load_points(tmp_path / "x.xyz")


def test_files_come_back(tmp_path, cloud):
    cloud.save(tmp_path / "x.xyz")
    again = load_points(tmp_path / "x.xyz")
    assert again.names == cloud.names and torch.allclose(again.at, cloud.at, atol=1e-4)
    with pytest.raises(MediaError, match="cannot read"):
        load_points(tmp_path / "none.xyz")
