"""Head partitions: which neighborhood each group of heads sees, at every resolution. No torch in here."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("partition", "uniform", "plugins.partitions.uniform:Uniform")
    register("partition", "split", "plugins.partitions.split:Split")
    register("partition", "pyramid", "plugins.partitions.pyramid:Pyramid")
    register("partition", "table", "plugins.partitions.table:Table")
    register("partition", "global", "plugins.partitions.largest:Global")
    register("partition", "random", "plugins.partitions.drawn:Random")
