"""Google's own Pub/Sub client, unchanged, over REST, against the local cloud. Each line printed is one thing that held."""

import datetime
import sys

from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.cloud import pubsub_v1
from google.oauth2.credentials import Credentials
from google.protobuf import duration_pb2, field_mask_pb2
from google.pubsub_v1 import PublisherClient

endpoint, token, project, push_account = sys.argv[1:5]
common = {
    "credentials": Credentials(token),
    "transport": "rest",
    "client_options": ClientOptions(api_endpoint=endpoint),
}
publisher = pubsub_v1.PublisherClient(**common)
# The batching one has a deadline of 2**32 s for ordered messages, which Python's sockets do not take: over REST it fails by itself.
plain_publisher = PublisherClient(**common)
subscriber = pubsub_v1.SubscriberClient(**common)
topic = publisher.topic_path(project, "official")
path = subscriber.subscription_path(project, "official")


def held(what):
    print(what, flush=True)


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error.message
    raise AssertionError(f"{kind.__name__} was expected")


def pulled(most=10):
    answer = subscriber.pull(request={"subscription": path, "max_messages": most}, timeout=60)
    return list(answer.received_messages)


publisher.create_topic(request={"name": topic, "labels": {"a": "b"}})
assert "official" in refused(exceptions.Conflict, lambda: publisher.create_topic(name=topic))
assert publisher.get_topic(topic=topic).labels == {"a": "b"}
change = {"topic": {"name": topic, "labels": {"c": "d"}}, "update_mask": field_mask_pb2.FieldMask(paths=["labels"])}
assert publisher.update_topic(request=change).labels == {"c": "d"}
for number in range(3):
    publisher.create_topic(name=publisher.topic_path(project, f"page-{number}"))
listed = [found.name for found in publisher.list_topics(request={"project": f"projects/{project}", "page_size": 2})]
assert listed == sorted(set(listed)) and len(listed) >= 4 and topic in listed, listed
missing = publisher.topic_path(project, "missing")
assert "resource=missing" in refused(exceptions.NotFound, lambda: publisher.get_topic(topic=missing))
refused(exceptions.BadRequest, lambda: publisher.create_topic(name=publisher.topic_path(project, "x")))
held("topics")

wanted = {
    "name": path,
    "topic": topic,
    "ack_deadline_seconds": 600,
    "filter": 'attributes.kind = "wanted" AND NOT attributes:old',
    "enable_message_ordering": True,
    "retain_acked_messages": True,
    "dead_letter_policy": {"dead_letter_topic": publisher.topic_path(project, "page-0"), "max_delivery_attempts": 5},
    "retry_policy": {
        "minimum_backoff": duration_pb2.Duration(seconds=0),
        "maximum_backoff": duration_pb2.Duration(seconds=1),
    },
}
made = subscriber.create_subscription(request=wanted)
assert made.state == pubsub_v1.types.Subscription.State.ACTIVE
assert made.expiration_policy.ttl == datetime.timedelta(days=31), made
assert subscriber.get_subscription(subscription=path) == made
assert list(publisher.list_topic_subscriptions(topic=topic)) == [path]
refused(exceptions.Conflict, lambda: subscriber.create_subscription(request=wanted))
bad = {"name": path + "-2", "topic": topic, "filter": "attributes:a AND attributes:b OR attributes:c"}
assert "filter" in refused(exceptions.BadRequest, lambda: subscriber.create_subscription(request=bad))
held("subscriptions")

attributes = {"kind": "wanted"}
ordered = [{"data": b"%d" % number, "ordering_key": "key", "attributes": attributes} for number in range(3)]
ids = list(plain_publisher.publish(request={"topic": topic, "messages": ordered}).message_ids)
futures = [publisher.publish(topic, b"no", kind="other"), publisher.publish(topic, b"no", old="", **attributes)]
ids += [future.result(timeout=60) for future in futures]
first = pulled()
assert [one.message.message_id for one in first] == ids[:3], first
assert [one.message.data for one in first] == [b"0", b"1", b"2"]
assert {one.delivery_attempt for one in first} == {1} and {one.message.ordering_key for one in first} == {"key"}
held("ordered messages through a filter")

subscriber.acknowledge(subscription=path, ack_ids=[first[2].ack_id])
subscriber.modify_ack_deadline(subscription=path, ack_ids=[first[0].ack_id], ack_deadline_seconds=0)
again = pulled()
assert [one.message.message_id for one in again] == ids[:3], again
assert again[0].delivery_attempt == 2
refused(exceptions.BadRequest, lambda: subscriber.acknowledge(subscription=path, ack_ids=["never"]))
subscriber.acknowledge(subscription=path, ack_ids=[one.ack_id for one in again])
subscriber.seek(request={"subscription": path, "time": again[1].message.publish_time})
back = pulled()
assert [one.message.message_id for one in back][-2:] == ids[1:3], back
subscriber.acknowledge(subscription=path, ack_ids=[one.ack_id for one in back])
held("redelivery and seek")

push = pubsub_v1.types.PushConfig(
    push_endpoint="http://127.0.0.1:1/",
    oidc_token={"service_account_email": push_account, "audience": "https://worker"},
    no_wrapper={"write_metadata": True},
)
subscriber.modify_push_config(subscription=path, push_config=push)
assert subscriber.get_subscription(subscription=path).push_config == push
assert "not supported" in refused(exceptions.BadRequest, pulled)
change = {
    "subscription": {"name": path, "ack_deadline_seconds": 20},
    "update_mask": field_mask_pb2.FieldMask(paths=["ack_deadline_seconds", "push_config"]),
}
changed = subscriber.update_subscription(request=change)
assert changed.ack_deadline_seconds == 20 and not changed.push_config.push_endpoint
publisher.detach_subscription(request={"subscription": path})
assert subscriber.get_subscription(subscription=path).detached
refused(exceptions.BadRequest, pulled)
subscriber.delete_subscription(subscription=path)
refused(exceptions.NotFound, lambda: subscriber.get_subscription(subscription=path))
publisher.delete_topic(topic=topic)
refused(exceptions.NotFound, lambda: publisher.publish(topic, b"x").result(timeout=60))
held("push, update, detach and delete")
