"""Kafka to Redis with kafka-python and redis-py: a batch, one pipeline, then the commit.

Environment: KAFKA, TOPIC, GROUP, REDIS_PORT. Runs until stopped.
"""
import json
import os
import time

import redis
from kafka import KafkaConsumer

RETENTION_S = 5 * 3600
store = redis.Redis(port=int(os.environ["REDIS_PORT"]))
consumer = KafkaConsumer(
    os.environ["TOPIC"],
    bootstrap_servers=os.environ["KAFKA"],
    group_id=os.environ["GROUP"],
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    max_poll_records=1000,
)

while True:
    polled = consumer.poll(timeout_ms=1000, max_records=1000)
    records = [record for of_partition in polled.values() for record in of_partition]
    if not records:
        continue
    pipeline = store.pipeline(transaction=False)
    oldest = time.time() - RETENTION_S
    for record in records:
        text = record.value.decode()
        message = json.loads(text)
        device_id, timestamp = message["device_id"], message["timestamp"]
        state = {"payload": json.dumps(message["payload"]), "timestamp": timestamp}
        pipeline.hset(f"device:last_state:{device_id}", mapping=state)
        pipeline.zadd(f"device:history:{device_id}", {text: timestamp})
        pipeline.zremrangebyscore(f"device:history:{device_id}", "-inf", oldest)
        pipeline.publish(f"device-updates:{device_id}", text)
    pipeline.execute()
    consumer.commit()
