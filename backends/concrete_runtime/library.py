"""The program that computes: compiled from MLIR here, on the processor that will run it."""

from __future__ import annotations

import json
import shutil
from typing import Any

from concrete import compiler

from ...ir.errors import ArtifactError, MissingPackageError
from .scratch import removed_with, scratch_folder
from .store import Settings

LINKER = "ld"
"""What Concrete calls to make a program of what it compiled."""

_STRATEGIES = {
    "mono": (compiler.OptimizerStrategy.DAG_MONO, compiler.OptimizerMultiParameterStrategy.PRECISION),
    "multi": (compiler.OptimizerStrategy.DAG_MULTI, compiler.OptimizerMultiParameterStrategy.PRECISION),
    "multi-norm2": (
        compiler.OptimizerStrategy.DAG_MULTI,
        compiler.OptimizerMultiParameterStrategy.PRECISION_AND_NORM2,
    ),
}


class Compiled:
    """A compiled program; its folder is removed with it.

    Args:
        library: Concrete's library.

    Attributes:
        library: It.
        information: Concrete's description of the program: parameters, shapes of ciphertexts.
        function: Name of its one function.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self.information = library.get_program_info()
        (self.function,) = self.information.function_list()


def compile_library(
    mlir: str, settings: Settings, *, simulated: bool = False, parallel: bool = True
) -> Compiled:
    """Compile a program.

    Args:
        mlir: Its text.
        settings: How it was compiled when its parameters were chosen.
        simulated: For simulation, else for ciphertexts.
        parallel: With loops on all cores, where the settings have such loops.

    Raises:
        MissingPackageError: There is no linker.
        ArtifactError: This version of Concrete does not take it.
    """
    folder = scratch_folder()
    maker = compiler.Compiler(
        folder,
        compiler.lookup_runtime_lib(),
        generate_shared_lib=True,
        generate_static_lib=False,
        generate_program_info=True,
        generate_compilation_feedback=False,
    )
    try:
        library = maker.compile(mlir, _options(settings, simulated, parallel))
    except RuntimeError as error:
        if shutil.which(LINKER) is None:
            raise MissingPackageError(
                "a program that Concrete needs to compile is not installed",
                found=f"no {LINKER}",
                do="install the linker (Debian: apt install binutils; macOS: xcode-select --install)",
            ) from error
        raise ArtifactError(
            "this version of Concrete cannot compile the circuit",
            found=str(error).strip().splitlines()[0] if str(error).strip() else "no reason",
            do="compile the model again",
        ) from error
    made = Compiled(library)
    return removed_with(made, library)  # type: ignore[no-any-return]


def _options(settings: Settings, simulated: bool, parallel: bool) -> Any:
    options = compiler.CompilationOptions(compiler.Backend.CPU)
    options.simulation(simulated)
    options.set_loop_parallelize(parallel and settings.loop_parallelize)
    options.set_dataflow_parallelize(False)
    options.set_auto_parallelize(False)
    options.set_compress_evaluation_keys(settings.compress_keys)
    options.set_compress_input_ciphertexts(settings.compress_inputs)
    options.set_enable_overflow_detection_in_simulation(False)
    options.set_composable(False)
    # A tolerance of 1 is none.
    options.set_p_error(1.0 if settings.p_error is None else settings.p_error)
    options.set_global_p_error(1.0 if settings.global_p_error is None else settings.global_p_error)
    strategy, several = _STRATEGIES[settings.strategy]
    options.set_optimizer_strategy(strategy)
    options.set_optimizer_multi_parameter_strategy(several)
    options.set_display_optimizer_choice(False)
    options.set_enable_tlu_fusing(True)
    options.set_print_tlu_fusing(False)
    options.set_security_level(settings.security_level)
    return options


def specs_of(information: Any) -> bytes:
    """What a client must know of a program: its parameters, and the shapes of what is encrypted."""
    return json.dumps(json.loads(information.serialize())).encode()
