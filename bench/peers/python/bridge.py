"""MQTT to Kafka with paho-mqtt and confluent-kafka: the architecture document's own libraries, one record a message,
its delivery report served by the main thread while the network thread receives.

Environment: MQTT_PORT, CLIENT_ID, PREFIX, KAFKA, TOPIC. Runs until stopped.
"""
import json
import os
import time

import paho.mqtt.client as mqtt
from confluent_kafka import Producer

PREFIX, TOPIC = os.environ["PREFIX"], os.environ["TOPIC"]
last_seen = {}
producer = Producer(
    {
        "bootstrap.servers": os.environ["KAFKA"],
        "acks": "all",
        "queue.buffering.max.messages": 1_000_000,
    }
)


def report(error, _record):
    if error is not None:
        raise SystemExit(str(error))


def subscribe(client, *_):
    client.subscribe([(f"{PREFIX}/+/data", 1), (f"{PREFIX}/+/hello", 1)])


def receive(_client, _userdata, message):
    device_id, kind = message.topic.split("/")[1:3]
    if kind == "hello":
        last_seen[device_id] = time.time()
        return
    record = {"device_id": device_id, "payload": json.loads(message.payload), "timestamp": int(time.time())}
    producer.produce(TOPIC, key=device_id, value=json.dumps(record), on_delivery=report)
    producer.poll(0)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=os.environ["CLIENT_ID"], clean_session=False)
client.on_connect = subscribe
client.on_message = receive
client.connect("127.0.0.1", int(os.environ["MQTT_PORT"]))
client.loop_start()
while True:
    producer.poll(0.05)
