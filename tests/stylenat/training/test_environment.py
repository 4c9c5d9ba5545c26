import subprocess

from stylenat.training.run import environment, recorded_environment, revision, write_environment


def test_the_environment_names_code_versions_and_machine(tmp_path):
    found = environment(3, {"stylenat": "0.1.0"}, [])
    assert found["hardware"]["cores"] >= 1 and found["hardware"]["memory_gib"] > 0 and found["processes"] == 1
    assert found["versions"]["torch-fidelity"] and found["versions"]["scipy"] and found["seed"] == 3
    write_environment(tmp_path, found)
    assert recorded_environment(tmp_path) == found
    (tmp_path / "environment.json").write_text("[")
    assert recorded_environment(tmp_path) == {} == recorded_environment(tmp_path / "nowhere")


def test_a_package_installed_within_someone_elses_checkout_has_no_revision(tmp_path):
    def git(*command):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *command], cwd=tmp_path, check=True)

    package = tmp_path / "venv" / "stylenat"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    assert revision(package) == {"git": None, "commit": None}
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert len(revision(package)["commit"]) == 40 and revision(package)["commit"].startswith(revision(package)["git"])
