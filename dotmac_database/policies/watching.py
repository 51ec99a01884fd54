"""Calls a policy's function with the symbolic actor, and finds what the actor itself can't see.

Python asks no object when it is compared by ``is``, or by ``isinstance``. So each function that is called meanwhile is
looked through for these.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from ..errors import PolicyNotExpressibleError
from .symbols import Trace

T = TypeVar("T")

_IDENTITY = ("IS_OP", "IF_NONE", "IF_NOT_NONE")
_MATCHES = frozenset(("MATCH_CLASS", "MATCH_MAPPING", "MATCH_SEQUENCE"))
_TYPE_NAMES = frozenset(("type", "__class__"))
_BUILTINS = frozenset(("isinstance", "issubclass", "hasattr", "id", "is_", "is_not", "callable"))
_LIBRARIES = frozenset(("sqlalchemy", "dotmac_database", "pydantic"))
_CALLER = "dotmac_database.policies.policy"


def called(function: Callable[[], T], trace: Trace) -> T:
    """The result of ``function()``, which calls a policy's function with a symbolic actor.

    Raises `PolicyNotExpressibleError` for whatever the function raises, and for a comparison by identity or class in
    the function or in those that it calls.
    """
    codes: dict[CodeType, None] = {}
    builtins: dict[str, None] = {}
    frames: set[FrameType] = set()

    # A tracer sees nothing of a function that profiles.
    def profile(frame: FrameType, event: str, argument: Any) -> None:  # pragma: no cover
        if event == "call":
            module = str(frame.f_globals.get("__name__"))
            caller = frame.f_back
            by_policy = caller is not None and str(caller.f_globals.get("__name__")).startswith(_CALLER)
            if module.partition(".")[0] in _LIBRARIES or not (by_policy or caller in frames):
                return  # a library does not branch on what it was given by the policy, or SQLAlchemy calls it
            frames.add(frame)
            if module == "functools" and frame.f_code.co_name == "dispatch":
                builtins["singledispatch"] = None
            elif module.partition(".")[0] not in sys.stdlib_module_names:
                codes[frame.f_code] = None
        elif event == "c_call" and frame.f_code in codes and getattr(argument, "__name__", "") in _BUILTINS:
            builtins[argument.__name__] = None

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        result = function()
    except PolicyNotExpressibleError:
        raise
    except Exception as error:
        sys.setprofile(before)
        if trace.refusal is not None:
            raise trace.refusal from error
        trace.refuse(f"called with a symbolic actor, it raises {type(error).__name__}: {error}")
    finally:
        sys.setprofile(before)
    if trace.refusal is not None:
        raise trace.refusal
    for name in builtins:
        trace.refuse(f"it calls {name}(), which does not see that the actor is symbolic.")
    for code in codes:
        _check(code, trace)
    return result


def _check(code: CodeType, trace: Trace) -> None:
    for instruction in dis.get_instructions(code):
        where = f"{code.co_filename}, line {code.co_firstlineno}"
        if any(part in instruction.opname for part in _IDENTITY):
            trace.refuse(
                f'it compares by "is" ({where}), which does not see that the actor is symbolic; compare by ==.'
            )
        if instruction.opname in _MATCHES or instruction.argval in _TYPE_NAMES:
            trace.refuse(f"it asks for the class of a value ({where}), which does not see that the actor is symbolic.")
