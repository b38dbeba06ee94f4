#!/usr/bin/env python3
"""The other side of the wire: a master and a monitor that know the original pipeline's fields and nothing else.

    wire.py results BOOTSTRAP TOPIC --expect N [--workers W]   reads results until N tasks have one, prints a line each
    wire.py task BOOTSTRAP TOPIC --id N --like RESULT          publishes a task with the original's fields alone; its
                                                               cell and chances are those of a line of `results`

Uses kafka-python, as the original does. Exit code 1 when a field is missing or has another type, or results are missing.
"""

import argparse
import json
import sys

from kafka import KafkaConsumer, KafkaProducer

STATUSES = {
    "success", "skipped_few_polygons", "skipped_no_target_classes", "skipped_sampling",
    "failed_download", "failed_empty_mask", "failed",
}  # fmt: skip


def read_result(result):
    """What the original's monitor takes from a result; a KeyError or ValueError is what would stop it."""
    line = {
        "task_id": int(result["task_id"]),
        "worker_id": result["worker_id"],
        "bbox": [float(v) for v in result["bbox"]],
        "chips_saved": int(result["chips_saved"]),
        "chips_per_class": {int(c): int(n) for c, n in result["chips_per_class"].items()},
        "status": result["status"],
        "target_samples": {int(c): int(n) for c, n in result["target_samples"].items()},
        "sampling_probs": {int(c): float(p) for c, p in result["sampling_probs"].items()},
        "error": result.get("error"),
    }
    if line["status"] not in STATUSES:
        raise ValueError(f"status {line['status']!r} is not one the original knows")
    if line["status"].startswith("failed") and not line["error"]:
        raise ValueError("a failed result without `error`")
    if sum(line["chips_per_class"].values()) != line["chips_saved"] or len(line["bbox"]) != 4:
        raise ValueError(f"counts or bbox do not fit: {line}")
    return line


def results(given):
    consumer = KafkaConsumer(
        given.topic,
        bootstrap_servers=given.bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=given.timeout * 1000,
    )
    seen = {}
    for message in consumer:
        line = read_result(json.loads(message.value.decode("utf-8")))
        if line["task_id"] not in seen:
            print(json.dumps(line))
        seen[line["task_id"]] = line
        if len(seen) >= given.expect:
            break
    consumer.close()
    workers = {line["worker_id"] for line in seen.values()}
    chips = sum(line["chips_saved"] for line in seen.values())
    print(f"{len(seen)} of {given.expect} results read, {chips} chips, by {sorted(workers)}", file=sys.stderr)
    return len(seen) == given.expect and len(workers) >= given.workers


def task(given):
    like = json.loads(given.like)
    message = {
        "task_id": given.id,
        "bbox": like["bbox"],
        "grid_step": 0.05,
        "polygon_count": 100,
        "class_distribution": like["chips_per_class"],
        "sampling_probs": like["sampling_probs"],
        "target_samples": like["target_samples"],
    }
    producer = KafkaProducer(bootstrap_servers=given.bootstrap)
    key, value = f"task_{given.id}".encode(), json.dumps(message).encode()
    producer.send(given.topic, key=key, value=value).get(timeout=given.timeout)
    producer.close()
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("results", results), ("task", task)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("bootstrap")
        command.add_argument("topic")
        command.add_argument("--timeout", type=int, default=60, help="seconds without a message")
        if run is results:
            command.add_argument("--expect", type=int, required=True)
            command.add_argument("--workers", type=int, default=1, help="fewer workers are a failure")
        else:
            command.add_argument("--id", type=int, required=True)
            command.add_argument("--like", required=True, help="a line that `results` printed")
    given = parser.parse_args()
    sys.exit(0 if given.run(given) else 1)


if __name__ == "__main__":
    main()
