"""Images that are encrypted to a key: what opens them, what does not, and what others make of them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest

import orchestrator
from harness.command import CommandFailed
from harness.job import Job
from harness.program import Program, Run
from orchestrator import errors


@pytest.fixture
def run(job: Job) -> Run:
    run = Run(Program("large_private"), job)
    run.start()
    return run


@pytest.fixture
def key(job: Job) -> Path:
    return new_key(job, "key")


def new_key(job: Job, name: str) -> Path:
    path = job.directory / name
    job.orch.ok("keygen", "-o", str(path))
    return path


def public(path: Path) -> str:
    printed = [line for line in path.read_text().splitlines() if line.startswith("# public key: ")]
    return printed[0].removeprefix("# public key: ")


@pytest.mark.parametrize("compress", [(), ("--compress",), ("--compress", "lz4")], ids=["plain", "zstd", "lz4"])
@pytest.mark.parametrize("ending", ["run", "kill"])
@pytest.mark.parametrize("program", ["large_private", "anon_shared"])
def test_a_job_survives_in_an_encrypted_image(
    job: Job, key: Path, program: str, ending: str, compress: tuple[str, ...]
) -> None:
    run = Run(Program(program), job)
    run.start()
    job.restore_options = ["--key", str(key), "--verify"]
    options = ("--encrypt", public(key), *compress)
    if ending == "kill":
        job.checkpoint_and_kill(*options)
    else:
        job.checkpoint(*options)
        run.must_pass()
        run.back_to_checkpoint()
    assert job.image.read_bytes().startswith(b"age-encryption.org/v1\n")
    job.restore()
    run.must_pass()


def test_a_job_moves_through_a_pipe_encrypted(run: Run, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_ENCRYPT", str(key))
    monkeypatch.setenv("ORCH_KEY", str(key))
    run.job.move("--compress", "lz4")
    run.must_pass()


def test_an_image_for_which_memory_is_short_is_encrypted_while_the_job_stands_still(
    run: Run, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.capture import checkpoint

    monkeypatch.setattr(checkpoint, "spare_bytes", lambda _: 1 << 20)
    job = run.job
    image = orchestrator.checkpoint(job.name, job.image, encrypt=[str(key)])
    with pytest.raises(errors.ImageEncrypted):
        image.describe()
    image.keys = [str(key)]
    assert image.job == job.name
    image.close()
    run.must_pass()
    run.back_to_checkpoint()
    restored = orchestrator.restore(job.image, keys=[key])
    run.must_pass()
    assert restored.wait() == 0


def test_any_one_of_several_keys_opens_an_image(run: Run, key: Path) -> None:
    job = run.job
    second, stranger = new_key(job, "second"), new_key(job, "stranger")
    both = job.directory / "both.pub"
    both.write_text(f"# the two of us\n\n{public(key)}\n{public(second)}\n")
    job.checkpoint("--encrypt", str(both))
    for one in (key, second):
        assert "large_private" in job.orch.ok("show", "--key", str(stranger), "--key", str(one), str(job.image)).output
    refused = job.orch.expect(38, "show", "--key", str(stranger), str(job.image))
    assert "encrypted to another key" in refused.errors
    refused = job.orch.expect(37, "restore", str(job.image))
    assert "--key FILE" in refused.errors
    run.must_pass()


def test_keys_of_openssh_do(run: Run) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here")
    job = run.job
    mine = job.directory / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(mine)], check=True)
    job.checkpoint_and_kill("--encrypt", f"{mine}.pub")
    job.restore_options = ["--key", str(mine)]
    job.restore()
    run.must_pass()


def test_an_encrypted_image_is_an_age_file(run: Run, key: Path) -> None:
    job = run.job
    whole = job.checkpoint_and_kill("--encrypt", str(key)).read_bytes()
    identity = pyrage.x25519.Identity.from_str(key.read_text().splitlines()[1])
    plain = pyrage.decrypt(whole, [identity])
    assert plain.startswith(b"ORCHCKPT")
    assert plain[-4096:].startswith(b"ORCHTAIL")
    other = job.image.with_name("other.ckpt")
    other.write_bytes(pyrage.encrypt(plain, [identity.to_public()]))
    job.restore_options = ["--key", str(key)]
    job.restore(other)
    run.must_pass()


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_damage_to_an_encrypted_image_is_found(run: Run, key: Path, compress: bool) -> None:
    job = run.job
    whole = job.checkpoint("--encrypt", str(key), *(["--compress"] if compress else [])).read_bytes()
    run.must_pass()
    header = whole.index(b"\n--- ") + 50
    bad = job.image.with_name("bad.ckpt")

    def refused(data: bytes, code: int) -> None:
        bad.write_bytes(data)
        job.orch.expect(code, "restore", str(bad), "-d", "--key", str(key))
        assert job.processes() == []

    for at in (header - 20, header + 20, len(whole) // 2, len(whole) - 20000, len(whole) - 1):
        refused(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], 35)
    chunk = 65536 + 16
    begin = header + 16
    for length in (60, header, begin + 5, begin + chunk, len(whole) // 2, len(whole) - 1):
        refused(whole[:length], 31)
    refused(whole + b"more", 31)
    if not compress:  # chunks that have changed places
        first, second = whole[begin : begin + chunk], whole[begin + chunk : begin + 2 * chunk]
        refused(whole[:begin] + second + first + whole[begin + 2 * chunk :], 35)


def test_key_files_that_cannot_be_used_are_refused_by_name(run: Run, key: Path) -> None:
    job = run.job
    job.checkpoint("--encrypt", str(key))

    def bad(text: str | None, mode: int = 0o600) -> Path:
        path = job.directory / "bad"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
            path.chmod(mode)
        return path

    def show(path: Path, why: str) -> None:
        assert why in job.orch.expect(39, "show", "--key", str(path), str(job.image)).errors

    def write(path: Path, why: str) -> None:
        finished = job.orch.expect(39, "checkpoint", "--cgroup", job.name, "-o", str(job.image), "--encrypt", str(path))
        assert why in finished.errors

    secret = key.read_text()
    for use in (show, write):
        use(bad(None), "cannot be read: No such file")
        use(bad(secret, 0o644), "may be read by others")
        use(bad(""), "holds no key")
        use(bad(secret.replace("KEY-1", "KEY-1Q")), "damaged")
        use(bad("caf\u00e9"), "not text")
    show(bad(public(key)), "which open nothing")
    write(bad("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "is a private key of OpenSSH")
    write(bad("age1nonsense", 0o644), "damaged")
    show(bad("-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n"), "cannot be used")
    assert "exists" in job.orch.expect(39, "keygen", "-o", str(key)).errors
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text() == secret
    run.must_pass()


def test_nothing_of_an_encrypted_image_is_on_a_disk_in_the_clear(key: Path, tmp_path: Path) -> None:
    from orchestrator.image.keys import read_recipients
    from orchestrator.image.receive import receive
    from orchestrator.image.stream import ImageStream

    with ImageStream(
        tmp_path / "image", architecture="x86_64", page_size=4096, recipients=read_recipients([str(key)])
    ) as stream:
        assert os.readlink(f"/proc/self/fd/{stream.fd}").startswith("/memfd:")
        at = stream.begin(b"records", 8192)
        os.pwrite(stream.fd, b"known" * 100, at + 4096)
        stream.send([])
        stream.commit()
    assert b"known" not in (tmp_path / "image").read_bytes()
    source = os.open(tmp_path / "image", os.O_RDONLY)
    plain = receive(source, [str(key)], name="it")
    try:
        assert os.readlink(f"/proc/self/fd/{plain}").startswith("/memfd:")
        assert os.pread(plain, 10, 8192 + 4096) == b"knownknown"
    finally:
        os.close(source)
        os.close(plain)


def test_an_encrypted_image_that_memory_cannot_hold_is_refused(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.image import receive
    from orchestrator.image.keys import read_recipients
    from orchestrator.image.reader import ImageFile
    from orchestrator.image.stream import ImageStream

    path = tmp_path / "image"
    with ImageStream(path, architecture="x86_64", page_size=4096, recipients=read_recipients([str(key)])) as stream:
        stream.begin(b"records", 5 << 20)
        stream.send([])
        stream.commit()
    ImageFile.open(path, keys=[str(key)]).close()
    monkeypatch.setattr(receive, "spare_bytes", lambda _: 2 << 20)
    with pytest.raises(errors.CannotHonour, match=r"needs 5 MiB of memory .* 2 MiB are free"):
        ImageFile.open(path, keys=[str(key)])


def test_what_goes_wrong_at_either_end_of_the_encryption_is_told_as_it_is(key: Path) -> None:
    from orchestrator.image import sealing
    from orchestrator.image.keys import read_identities, read_recipients

    class Oddity(BaseException):
        pass

    def broken(_: object) -> bytes:
        raise Oddity

    whole = io.BytesIO()
    recipients, identities = read_recipients([str(key)]), read_identities([str(key)])
    sealing.seal([bytes(100000)], whole.write, recipients)
    with pytest.raises(Oddity):
        sealing.seal([bytes(100000)], broken, recipients)
    with pytest.raises(Oddity):
        sealing.seal((broken(None) for _ in range(2)), io.BytesIO().write, recipients)
    with pytest.raises(Oddity):
        sealing.unseal(io.BytesIO(whole.getvalue()).read, broken, identities, name="it")
    with pytest.raises(Oddity):
        sealing.unseal(broken, whole.write, identities, name="it")


def test_an_image_is_not_half_encrypted(run: Run) -> None:
    """Whoever it cannot be encrypted to is found before the job is touched."""
    job = run.job
    with pytest.raises(CommandFailed):
        job.checkpoint("--encrypt", "age1nobody")
    assert not job.image.exists()
    run.must_pass()
