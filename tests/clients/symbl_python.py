"""Python's `symbl`, unchanged: its three addresses, which no option reaches, are set from outside."""

import json
import os
import sys
import threading
import time
import wave

import symbl
import symbl_rest

URL = os.environ["HEARSAY_URL"]
SOCKETS = URL.replace("http", "ws", 1)
sys.modules["symbl.Connection"].SYMBL_WEBSOCKET_BASE_PATH = f"{SOCKETS}/session/subscribe/"
sys.modules["symbl.streaming_api.StreamingApi"].SYMBL_STREAMING_API_FORMAT = (
    SOCKETS + "/v1/realtime/insights/{}?source=python_sdk"
)
rest = symbl_rest.Configuration()
rest.host = URL
symbl_rest.Configuration.set_default(rest)

CREDENTIALS = {"app_id": os.environ["HEARSAY_APP_ID"], "app_secret": os.environ["HEARSAY_APP_SECRET"]}
PATIENCE = 30.0


def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"{what}: not within {PATIENCE} s")


def connect(rate):
    # It looks for a socket that its own thread may not have made yet.
    for _ in range(10):
        try:
            return symbl.Streaming.start_connection(
                credentials=CREDENTIALS,
                speaker=None,
                trackers=None,
                insight_types=["question"],
                config={"speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": rate}},
            )
        except AttributeError:
            continue
    sys.exit("no connection in ten tries")


frames = []
subscribed = []
with wave.open(os.environ["HEARSAY_WAV"]) as sound:
    rate = sound.getframerate()
    connection = connect(rate)
    connection.subscribe({kind: frames.append for kind in ["message", "message_response"]})
    until("conversation_created", lambda: connection.conversation.get_conversation_id())
    conversation = connection.conversation.get_conversation_id()
    listener = symbl.Connection(conversation, connection.connectionId, "", "", credentials=CREDENTIALS)
    kinds = ["message", "transcript_response", "message_response"]
    listening = threading.Thread(target=listener.subscribe, args=({kind: subscribed.append for kind in kinds},))
    listening.start()
    until("the subscriber's first frame", lambda: subscribed)
    begun = time.monotonic()
    sent = 0
    while part := sound.readframes(rate // 10):
        connection.send_audio(part)
        sent += len(part) // 2
        time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
connection.stop()
stopped = time.monotonic()
until("the close", lambda: connection.connection.sock is None or not connection.connection.sock.connected)
closed = time.monotonic() - stopped
until("the last words", lambda: any('"message_response"' in frame for frame in subscribed))
listener.connection.close()
listening.join(PATIENCE)

# The one it comes with was made before its address was set.
api = type(symbl.Conversations)()
getters = {
    "conversation": api.get_conversation,
    "messages": api.get_messages,
    "topics": api.get_topics,
    "questions": api.get_questions,
    "action_items": api.get_action_items,
    "follow_ups": api.get_follow_ups,
    "entities": api.get_entities,
    "trackers": api.get_trackers,
    "analytics": api.get_analytics,
    "members": api.get_members,
}
# An answer that it cannot read becomes a dict with a message.
got = {name: getter(conversation, credentials=CREDENTIALS) for name, getter in getters.items()}
# Its reader's thread is no daemon: the program ends only because the server closed.
print(json.dumps({
    "conversation": conversation,
    "closed": closed,
    "unread": [name for name, answer in got.items() if isinstance(answer, dict)],
    "said": [message.text for message in got["messages"].messages],
    "talked": [member.talk_time.seconds for member in got["analytics"].members],
    "frames": frames,
    "subscribed": [json.loads(frame) for frame in subscribed],
}))
