"""Where a setting comes from, and what is refused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.core.config import Settings, load_settings
from agent.core.errors import SettingsError

ROOT = Path(__file__).parent.parent.parent


class Sources:
    """All the places that settings come from, in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.here = folder / "here"
        self.repository = folder / "repository"
        self.user_file = folder / "config.toml"
        self.here.mkdir()
        self.repository.mkdir()
        self.environ: dict[str, str] = {}

    def env_file(self, text: str) -> None:
        (self.here / ".env").write_text(text)

    def turbo_toml(self, text: str) -> None:
        (self.repository / "turbo.toml").write_text(text)

    def load(self, **overrides: object) -> Settings:
        return load_settings(
            repository=self.repository,
            working_directory=self.here,
            overrides=overrides,
            environ=self.environ,
            user_file=self.user_file,
        )


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def test_each_source_is_stronger_than_the_next(sources: Sources) -> None:
    assert sources.load().llamacpp_parallel == 4
    sources.user_file.write_text("llamacpp_parallel = 5\n")
    assert sources.load().llamacpp_parallel == 5
    sources.turbo_toml("[llamacpp]\nparallel = 6\n")
    assert sources.load().llamacpp_parallel == 6
    sources.env_file("LLAMACPP_PARALLEL=7\n")
    assert sources.load().llamacpp_parallel == 7
    sources.environ["LLAMACPP_PARALLEL"] = "8"
    assert sources.load().llamacpp_parallel == 8
    assert sources.load(llamacpp_parallel=9).llamacpp_parallel == 9
    assert sources.load(llamacpp_parallel=None).llamacpp_parallel == 8


def test_an_empty_value_is_no_value(sources: Sources) -> None:
    sources.environ["LLAMACPP_MODEL_PATH"] = ""
    assert sources.load().llamacpp_model_path is None


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("environment", r"the environment: unknown setting LLAMACPP_PARALEL\n.*LLAMACPP_PARALLEL"),
        ("env_file", r"\.env: unknown setting LLAMACPP_PARALEL\n.*LLAMACPP_PARALLEL"),
        ("toml", r"turbo\.toml: unknown setting llamacpp_paralel\n.*llamacpp_parallel"),
        ("user", r"config\.toml: unknown setting llamacpp_paralel\n.*llamacpp_parallel"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    sources: Sources, place: str, expected: str
) -> None:
    match place:
        case "environment":
            sources.environ["LLAMACPP_PARALEL"] = "4"
        case "env_file":
            sources.env_file("LLAMACPP_PARALEL=4\n")
        case "toml":
            sources.turbo_toml("[llamacpp]\nparalel = 4\n")
        case _:
            sources.user_file.write_text("llamacpp_paralel = 4\n")
    with pytest.raises(SettingsError) as caught:
        sources.load()
    assert re.search(expected, str(caught.value))
    assert caught.value.exit_code == 2


def test_names_of_other_programs_are_not_ours_to_refuse(sources: Sources) -> None:
    sources.environ |= {"OLLAMA_HOST": "x", "PATH": "/bin"}
    sources.env_file("DATABASE_URL=x\n")
    assert sources.load().backend == "llamacpp"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKEND", "vllm"),
        ("LLAMACPP_PORT", "99999"),
        ("LLAMACPP_PARALLEL", "0"),
        ("LLAMACPP_CONTEXT_SIZE", "many"),
        ("REQUEST_TIMEOUT_S", "-1"),
        ("LLAMACPP_USE_VULKAN", "maybe"),
    ],
)
def test_a_wrong_value_names_source_and_field(sources: Sources, name: str, value: str) -> None:
    sources.environ[name] = value
    with pytest.raises(SettingsError, match=rf"the environment: {name}={value}: "):
        sources.load()


def test_broken_toml_names_file_and_line(sources: Sources) -> None:
    sources.turbo_toml("backend = \n")
    with pytest.raises(SettingsError, match=r"turbo\.toml: .*line 1"):
        sources.load()


def test_a_repository_never_chooses_the_program_that_we_run(sources: Sources) -> None:
    sources.turbo_toml('llamacpp_binary_path = "./evil"\n')
    with pytest.raises(SettingsError, match="may not be set by a repository"):
        sources.load()


def test_settings_are_frozen(sources: Sources) -> None:
    with pytest.raises(ValidationError):
        sources.load().llamacpp_port = 1


def test_every_field_is_in_the_example_file_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    fields = {}
    for name, field in Settings.model_fields.items():
        default = field.default
        fields[name.upper()] = (
            ""
            if default in (None, ())
            else str(default).lower()
            if default is False
            else str(default)
        )
    assert shown == fields
    before = [lines[number - 1] for number, line in enumerate(lines) if line.startswith("BACKEND")]
    assert before[0].startswith("#")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LLAMACPP_N_GPU_LAYERS", "-1", r"=-1: [^\n]*'all'; or: [^\n]*greater"),
        ("LLAMACPP_TENSOR_SPLIT", "x", r"=x: Input should be numbers"),
        ("LLAMACPP_BATCH_SIZE", "10000000", "less than or equal"),
        ("LLAMACPP_START_TIMEOUT_S", "inf", "less than or equal"),
        ("REQUEST_TIMEOUT_S", "inf", "less than or equal to 604800"),
        ("TURBO_TEST_TIMEOUT_S", "604801", "less than or equal to 604800"),
        ("TURBO_TEST_TIMEOUT_S", "nan", "less than or equal|greater than"),
        ("SANDBOX_CPU_S", "1000000000", "less than or equal to 604800"),
        ("LLAMACPP_THREADS", "1000000000", "less than or equal to 4096"),
        ("TURBO_ROUNDS", "101", "less than or equal"),
        ("TURBO_PLANS", "101", "less than or equal"),
        ("TURBO_CANDIDATES", "65", "less than or equal"),
        ("LLAMACPP_NONSENSE", "4", r"unknown setting LLAMACPP_NONSENSE\n\.env\.example"),
        ("LLAMACP_PARALLEL", "4", "Did you mean LLAMACPP_PARALLEL"),
    ],
)
def test_what_is_wrong_is_told_once(sources: Sources, name: str, value: str, said: str) -> None:
    sources.environ[name] = value
    with pytest.raises(SettingsError) as caught:
        sources.load()
    assert re.search(said, str(caught.value)), str(caught.value)
    assert str(caught.value).count(name) == 1
    assert "Value error" not in str(caught.value)


def test_names_of_other_programs_are_left_alone(sources: Sources) -> None:
    sources.environ |= {"LLAMA_ARG_PORT": "1", "SANDBOXES": "1", "TURBOVNC_PORT": "1"}
    assert sources.load().llamacpp_port == 0


def test_words_are_taken_in_any_case(sources: Sources) -> None:
    sources.environ |= {"LLAMACPP_PROFILE": "CPU", "BACKEND": "LlamaCpp"}
    assert (sources.load().llamacpp_profile, sources.load().backend) == ("cpu", "llamacpp")


FROM_A_STRANGER = {
    "LLAMACPP_BINARY_PATH": "./evil",
    "HF_ENDPOINT": "https://evil.example",
    "TURBO_REMOTE_HOSTS": "evil.example",
    "OLLAMA_LOCAL": "http://evil.example",
    "SANDBOX": "off",
    "MODEL_CACHE_MAX_GB": "0.001",
    "PREFIX_BANK_MAX_MB": "1",
    "HF_HUB_OFFLINE": "true",
}


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


@pytest.mark.parametrize("name", FROM_A_STRANGER)
def test_a_dotenv_that_git_tracks_is_the_repositorys_word(sources: Sources, name: str) -> None:
    git(sources.here, "init")
    sources.env_file(f"{name}={FROM_A_STRANGER[name]}\nLLAMACPP_PARALLEL=2\n")
    value = getattr(sources.load(), name.lower())  # nobody but the user can have put it there
    given = FROM_A_STRANGER[name]
    assert str(value).lower() in (given, f"{given}.0", "evil", "('evil.example',)")
    git(sources.here, "add", "--force", ".env")
    with pytest.raises(SettingsError) as refused:
        sources.load()
    assert f"(tracked by git): {name.lower()} may not be set by a repository" in str(refused.value)
    assert "a .env that git does not track" in refused.value.fix
    sources.env_file("LLAMACPP_PARALLEL=2\n")
    assert sources.load().llamacpp_parallel == 2


def test_a_tracked_dotenv_is_recognised_from_below_and_through_links(sources: Sources) -> None:
    sub = sources.here / "sub"
    sub.mkdir()
    (sub / "real").write_text("SANDBOX=off\n")
    (sub / ".env").symlink_to("real")
    git(sources.here, "init")
    git(sources.here, "add", "--all")
    sources.here = sub
    with pytest.raises(SettingsError, match="may not be set by a repository"):
        sources.load()


def test_no_error_shows_a_key(sources: Sources) -> None:
    sources.user_file.write_text("hf_token = 12345678\n")
    with pytest.raises(SettingsError) as refused:
        sources.load()
    assert "HF_TOKEN=..." in str(refused.value)
    assert "12345678" not in str(refused.value)


MODEL_FILES = ("./evil.gguf", "evil.gguf", "/evil", "~/evil.gguf", "models/evil.gguf", "../e/f:g")


@pytest.mark.parametrize("path", MODEL_FILES)
def test_a_repository_names_a_model_and_no_file(sources: Sources, path: str) -> None:
    refusal = (
        r"is a file, and a repository may only name a model.*\n.*LLAMACPP_MODEL_PATH in the env"
    )
    sources.turbo_toml(f'llamacpp_model_path = "{path}"\n')
    with pytest.raises(SettingsError, match=rf"turbo\.toml: llamacpp_model_path {refusal}"):
        sources.load()
    sources.turbo_toml("")
    git(sources.here, "init")
    sources.env_file(f"LLAMACPP_MODEL_PATH={path}\n")
    assert sources.load().llamacpp_model_path == Path(path)
    git(sources.here, "add", "--force", ".env")
    with pytest.raises(SettingsError, match=rf"tracked by git\): llamacpp_model_path {refusal}"):
        sources.load()


@pytest.mark.parametrize(
    "name", ["qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b:Q8_0", "acme/coder:Q8_0"]
)
def test_a_name_of_a_model_may_come_from_a_repository_unless_a_file_has_it(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(sources.here)
    sources.turbo_toml(f'[llamacpp]\nmodel_path = "{name}"\n')
    assert sources.load().llamacpp_model_path == Path(name)
    (sources.here / name).parent.mkdir(exist_ok=True)
    (sources.here / name).write_bytes(b"GGUF")
    with pytest.raises(SettingsError, match="may only name a model"):
        sources.load()
