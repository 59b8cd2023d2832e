"""The paper exchange: a venue of our own that speaks Kalshi's protocol over real sockets.

`events` is what a market does, `market` invents it from a seed, `tape` reads it from recordings, `matching`
decides who trades with it. The exchange around them owns the market clock and never imports the client.
"""
