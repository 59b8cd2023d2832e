"""Kalshi: wire, signatures, HTTP and WebSocket clients, and the adapter that makes it a `Venue`."""

from holdfast.venues.kalshi.adapter import KalshiVenue
from holdfast.venues.kalshi.blocking import KalshiClient
from holdfast.venues.kalshi.client import AsyncKalshiClient
from holdfast.venues.kalshi.signing import Signer

__all__ = ["AsyncKalshiClient", "KalshiClient", "KalshiVenue", "Signer"]
