"""Models on disk. Each format is a module with a name map; `minillama.load` opens what `Model.save` wrote."""
