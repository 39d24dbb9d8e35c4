"""The inference process: loads a policy and answers observations until its parent hangs up.

    python -m lightvla_ros.worker DESCRIPTOR

where DESCRIPTOR is the number of the connected socket it inherited. `RemotePolicy` starts it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from lightvla_ros.core.realtime import lower_process

# Inference must never outrank commands, and libraries start threads when they are imported.
lower_process()
# A second thread of NumPy's OpenBLAS spins between the small products of preprocessing: a whole core for
# nothing. The backends have threads of their own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from lightvla_ros.app import load_policy  # noqa: E402
from lightvla_ros.core.policy import Policy, warm_up  # noqa: E402
from lightvla_ros.worker.channel import Channel, ChannelClosed  # noqa: E402
from lightvla_ros.worker.messages import pack_chunk, pack_error, pack_spec, unpack_observation  # noqa: E402


def main() -> None:
    """Serve until the channel closes."""
    # Ctrl-C reaches the whole process group; when to end is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        policy = _load(channel)
        if policy is not None:
            while True:
                _answer(channel, policy)
    except ChannelClosed:
        pass


def _load(channel: Channel) -> Policy | None:
    options, _ = channel.receive()
    try:
        policy = load_policy(**options)
        warm_up(policy)  # here, where a first inference may take its time without counting as hung
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
        channel.send(pack_error(error))
        return None
    channel.send(pack_spec(policy.spec))
    return policy


def _answer(channel: Channel, policy: Policy) -> None:
    observation = unpack_observation(*channel.receive())
    try:
        answer = pack_chunk(policy.predict_chunk(observation))
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
        channel.send(pack_error(error))
        return
    channel.send(*answer)


if __name__ == "__main__":
    main()
