"""Every anchor sink against the same contract."""

from contextlib import contextmanager

import pytest
from contract.anchor_sink_contract import AnchorSinkContract, Stage
from support.anchor_servers import Authority, answering, closed_port, serving_witness
from support.s3 import Store, moto_store

from holdfast.anchors.file import FileSink
from holdfast.anchors.rfc3161 import TimestampSink
from holdfast.anchors.s3 import ObjectLockSink
from holdfast.anchors.witness import Witness
from holdfast.anchors.witness_client import WitnessSink
from holdfast.core.clock import ManualClock, SystemClock


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def store():
    with moto_store() as store:
        yield store


class TestFileSink(AnchorSinkContract):
    """A directory on another volume."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path / "volume"

    @contextmanager
    def stage(self, receipts, *logs):
        self.folder.mkdir(mode=0o700)
        yield Stage(FileSink(self.folder))

    @contextmanager
    def unreachable(self, receipts):
        yield FileSink(self.folder)


class TestWitnessSink(AnchorSinkContract):
    """A witness over HTTP."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path / "witness"

    @contextmanager
    def stage(self, receipts, *logs):
        witness = Witness(self.folder, clock=ManualClock())
        for log in logs:
            witness.pin(log.vkey)
        with serving_witness(witness) as url:
            yield Stage(WitnessSink(url, witness.vkey, receipts.newest))
        witness.close()

    @contextmanager
    def unreachable(self, receipts):
        witness = Witness(self.folder, clock=ManualClock())
        witness.close()
        yield WitnessSink(f"http://127.0.0.1:{closed_port()}", witness.vkey, receipts.newest)


class TestTimestampSink(AnchorSinkContract):
    """An RFC 3161 authority over HTTP: `openssl ts`."""

    @pytest.fixture(autouse=True)
    def _authority(self, authority):
        self.authority = authority

    @contextmanager
    def stage(self, receipts, *logs):
        with answering(self.authority.respond) as url:
            yield Stage(TimestampSink(url, self.authority.root), remembers=False)

    @contextmanager
    def unreachable(self, receipts):
        yield TimestampSink(f"http://127.0.0.1:{closed_port()}", self.authority.root)


class TestObjectLockSink(AnchorSinkContract):
    """A bucket with object lock, moto's."""

    @pytest.fixture(autouse=True)
    def _store(self, store):
        self.store = store

    @contextmanager
    def stage(self, receipts, *logs):
        url = f"s3://{self.store.make()}/desk"
        yield Stage(ObjectLockSink(url, self.store.environ, receipts.newest, SystemClock()))

    @contextmanager
    def unreachable(self, receipts):
        nowhere = Store(f"http://127.0.0.1:{closed_port()}")
        yield ObjectLockSink("s3://bucket/desk", nowhere.environ, receipts.newest, SystemClock())
