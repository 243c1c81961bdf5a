"""Results become one self-contained HTML page.

`content` holds the nouns of a page, `canvas` how figures look, `figures` and `mutagenesis` what they show,
`compare` the numbers behind them, `tables` and `sections` the page's parts, and `build` the stage.
Nothing here imports a model.
"""
