"""How one run happens: specification, models, training, metrics, rows. The only home of torch.

    from scaling import TokenizerRun, Workspace, execute

    execute(TokenizerRun(train_images=3_072), Workspace(attempt, (), None, cache), recorder, print, lambda: False)

Importing this package or `scaling.specification` never imports torch: `execute`, which needs it, comes when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import load_exported
    from .run import execute
    from .specification.components import (
        CausalRegulariserSpec,
        DataSpec,
        OptimiserSpec,
        ReconstructionLossSpec,
        TransformerSpec,
    )
    from .specification.costs.flops import flops_per_image, parameters
    from .specification.evaluation import EvaluationSpec
    from .specification.ladder import transformer
    from .specification.models.autoencoders import AutoencoderSpec, VqganSpec
    from .specification.models.quantizers import (
        BinarySphericalSpec,
        FiniteScalarQuantizerSpec,
        IndexBackpropagationSpec,
        LookupFreeQuantizerSpec,
        SimVectorQuantizerSpec,
        VectorQuantizerSpec,
    )
    from .specification.spec import GeneratorRun, RunSpec, TokenizerRun, parse_run
    from .specification.workspace import Progress, Workspace

_NAMES = {
    "export": ("load_exported",),
    "run": ("execute",),
    "specification.models.autoencoders": ("AutoencoderSpec", "VqganSpec"),
    "specification.components": (
        "CausalRegulariserSpec", "DataSpec", "OptimiserSpec", "ReconstructionLossSpec", "TransformerSpec",
    ),
    "specification.evaluation": ("EvaluationSpec",),
    "specification.costs.flops": ("flops_per_image", "parameters"),
    "specification.ladder": ("transformer",),
    "specification.models.quantizers": (
        "BinarySphericalSpec", "FiniteScalarQuantizerSpec", "IndexBackpropagationSpec", "LookupFreeQuantizerSpec",
        "SimVectorQuantizerSpec", "VectorQuantizerSpec",
    ),
    "specification.spec": ("GeneratorRun", "RunSpec", "TokenizerRun", "parse_run"),
    "specification.workspace": ("Progress", "Workspace"),
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "AutoencoderSpec", "BinarySphericalSpec", "CausalRegulariserSpec", "DataSpec", "EvaluationSpec",
    "FiniteScalarQuantizerSpec", "GeneratorRun", "IndexBackpropagationSpec", "LookupFreeQuantizerSpec",
    "OptimiserSpec", "Progress", "ReconstructionLossSpec", "RunSpec", "SimVectorQuantizerSpec", "TokenizerRun",
    "TransformerSpec", "VectorQuantizerSpec", "VqganSpec", "Workspace", "execute", "flops_per_image",
    "load_exported", "parameters", "parse_run", "transformer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
