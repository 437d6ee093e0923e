"""What differs between the packages llama-cpp-python (llama.cpp) and ik-llama-cpp-python (ik_llama.cpp), behind the same names."""

import ctypes
from pathlib import Path

try:
    import llama_cpp.llama_cpp as llama

    FORK = False
except ImportError:
    import ik_llama_cpp._ctypes_api as llama

    FORK = True

F32, F16 = 0, 1  # ggml types of the KV cache
# The fork takes no f32 without flash attention, nor with it on a processor with AVX2 alone.
MOST_EXACT_KV = F16 if FORK else F32
CONTEXT, ID, POSITION = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32


def processor_has(feature: str) -> bool:
    return feature in Path("/proc/cpuinfo").read_text("utf-8").split()


def bound(name: str, result, *arguments):
    """Returns a function that the fork's library has and its package does not name."""
    function = getattr(llama._lib, name)
    function.restype, function.argtypes = result, arguments
    return function


if FORK:
    synchronize = bound("llama_synchronize", None, CONTEXT)
    _clear = bound("llama_kv_cache_clear", None, CONTEXT)
    _remove = bound("llama_kv_cache_seq_rm", ctypes.c_bool, CONTEXT, ID, POSITION, POSITION)
    _copy = bound("llama_kv_cache_seq_cp", None, CONTEXT, ID, ID, POSITION, POSITION)
    _system = bound("llama_print_system_info", ctypes.c_char_p)
else:
    synchronize, _system = llama.llama_synchronize, llama.llama_print_system_info


class Cells:
    """The KV cache of a context."""

    def __init__(self, context):
        self.of = context if FORK else llama.llama_get_memory(context)

    def clear(self) -> None:
        _clear(self.of) if FORK else llama.llama_memory_clear(self.of, False)

    def remove(self, sequence: int, first: int) -> None:
        (_remove if FORK else llama.llama_memory_seq_rm)(self.of, sequence, first, -1)

    def copy(self, source: int, target: int) -> None:
        (_copy if FORK else llama.llama_memory_seq_cp)(self.of, source, target, -1, -1)


def fork_has_flash_attention(choice: str) -> bool:
    # Its package turns flash attention off where the processor has no AVX-VNNI, as an assertion fails there on longer prompts.
    return choice == "on" or choice == "auto" and processor_has("avx_vnni")


def set_flash_attention(params, choice: str) -> None:
    if FORK:
        params.flash_attn = fork_has_flash_attention(choice)
    else:
        params.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[choice]


def choose_buffers(params) -> None:
    if not FORK:
        params.use_extra_bufts = not processor_has("amx_int8")


def system(flash_attn: str) -> str:
    """Returns what the engine says of itself, and what was chosen here."""
    notes = [_system().decode().strip()]
    if FORK:
        notes.append(f"flash attention {'on' if fork_has_flash_attention(flash_attn) else 'off'}")
    elif processor_has("amx_int8"):
        notes.append("use_extra_bufts = False")
    return "; ".join(notes)
