"""The models Fairlane ships, one definition file each; `export.catalog` lists and loads them."""
