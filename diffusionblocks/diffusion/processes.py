"""What NoProp's processes ask of the number of layers and of steps. Standard library only: planning asks here too."""


def check_process(process: str, num_layers: int, num_steps: int | None = None) -> None:
    """Raise ValueError for layers or steps that a process cannot have.

    `discrete`: a layer for each step of the chain. `continuous` and `flow_matching`: one layer for all times, and any
    number of steps.
    """
    if process == "discrete":
        if num_steps not in (None, num_layers):
            raise ValueError(f"num_steps is {num_steps}: a discrete process has a step for each of {num_layers} layers")
    elif process in ("continuous", "flow_matching") and num_layers != 1:
        raise ValueError(f"process {process} has one layer for all times, and num_layers is {num_layers}, not 1")
