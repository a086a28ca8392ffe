// The fields of each record, listed once: the JSON writer and the JSON reader are both visitors of this list.
//   v(name, member)          always written
//   v.sparse(name, member)   written unless it equals the default-constructed value
//   v.group(name, fields)    a nested object; written unless it came out empty
//   v.object(name, pairs)    string pairs as one object
//   v.records(name, pairs, first, second)   string pairs as a list of objects
#pragma once

#include <concepts>
#include <type_traits>

#include "harness/result.h"

namespace fla::reports {

template <class T, class Record>
concept Is = std::same_as<std::remove_const_t<T>, Record>;

template <class V, Is<harness::Check> T>
void fields(V& v, T& r) {
  v("name", r.name);
  v("status", r.status);
  v.sparse("bound_used", r.bound_used);
  v.sparse("max_error", r.max_error);
  v.sparse("max_ulp", r.max_ulp);
  v.sparse("mean_ulp", r.mean_ulp);
  v.sparse("signed_bias", r.signed_bias);
  v.sparse("elements", r.elements);
  v.sparse("outside", r.outside);
  v.sparse("index", r.index);
  v.sparse("got", r.got);
  v.sparse("expected", r.expected);
  v.sparse("bound", r.bound);
  v.sparse("detail", r.detail);
}

template <class V, Is<harness::Timing> T>
void fields(V& v, T& r) {
  v("median_us", r.median_us);
  v("q1", r.q1_us);
  v("q3", r.q3_us);
  v("noise", r.noise);
  v("stop", r.stop);
  v("throttled", r.throttled);
  v("rounds", r.round_medians_us);
  v("samples_us", r.samples_us);
  v("clock_mhz", r.clock_mhz);
}

template <class V, Is<harness::Metrics> T>
void fields(V& v, T& r) {
  v("bytes", r.bytes);
  v("flops", r.flops);
  v("gbps", r.gbps);
  v("tflops", r.tflops);
  v("intensity", r.intensity);
  v("sol", r.sol);
  v("sol_hot", r.sol_hot);
  v("sol_datasheet", r.sol_datasheet);
  v("ceiling_us", r.ceiling_us);
  v("mix", r.mix);
  v.sparse("products", r.products);
}

template <class V, Is<harness::Memory> T>
void fields(V& v, T& r) {
  v("inputs", r.inputs);
  v("outputs", r.outputs);
  v("saved", r.saved);
  v("workspace", r.workspace);
  v("peak", r.peak);
  v("workspace_touched", r.workspace_touched);
  v("device_growth", r.device_growth);
}

template <class V, Is<harness::Power> T>
void fields(V& v, T& r) {
  v("w_mean", r.watts_mean);
  v("w_max", r.watts_max);
  v("temp_max", r.temperature_max);
  v("throttle", r.throttle_reasons);
}

template <class V, Is<harness::Result> T>
void fields(V& v, T& r) {
  v("key", r.key);
  v("case", r.case_text);
  v("operator", r.op);
  v("direction", r.direction);
  v.object("params", r.params);
  v("tier", r.tier);
  v("name", r.name);
  v("backend", r.backend);
  v("status", r.status);
  v("reason", r.reason);
  v("repro", r.repro);
  v("seconds", r.seconds);
  v("checks", r.checks);
  v("timed", r.timed);
  v.group("time", [&](auto& time) {
    time.sparse("cold", r.cold);
    time.sparse("hot", r.hot);
    time.sparse("launch_us", r.launch_us);
  });
  v.sparse("power", r.power);
  v.sparse("metrics", r.metrics);
  v.sparse("memory", r.memory);
}

template <class V, Is<harness::Calibration::Mix> T>
void fields(V& v, T& r) {
  v("reads", r.reads);
  v("writes", r.writes);
  v("in_place", r.in_place);
  v("cold", r.cold);
  v("hot", r.hot);
}

template <class V, Is<harness::Calibration> T>
void fields(V& v, T& r) {
  v("mixes", r.mixes);
  v("gemm_bf16", r.gemm_bf16_tflops);
  v("graph_step_us", r.graph_step_us);
  v("empty_launch_us", r.empty_launch_us);
  v("event_resolution_us", r.event_resolution_us);
}

template <class V, Is<harness::RunInfo> T>
void fields(V& v, T& r) {
  v("id", r.id);
  v("started", r.started);
  v("finished", r.finished);
  v("argv", r.argv);
  v("tool", r.tool);
  v("version", r.version);
  v.group("git", [&](auto& git) {
    git("sha", r.git_sha);
    git("dirty", r.git_dirty);
  });
  v.group("build", [&](auto& build) {
    build("type", r.build_type);
    build("compiler", r.compiler);
    build("cuda", r.cuda);
    build("flags", r.flags);
    build("archs", r.architectures);
  });
  v.group("device", [&](auto& device) {
    device("name", r.device_name);
    device("uuid", r.device_uuid);
    device("sm", r.sm);
    device("sms", r.multiprocessors);
    device("memory", r.device_memory);
    device("l2", r.l2_bytes);
  });
  v("driver", r.driver);
  v.group("clocks", [&](auto& clocks) {
    clocks("sm_max", r.sm_clock_max_mhz);
    clocks("mem_max", r.memory_clock_max_mhz);
    clocks("power_limit", r.power_limit_w);
  });
  v.group("host", [&](auto& host) {
    host("cpu", r.cpu);
    host("os", r.os);
  });
  v.sparse("calibration", r.calibration);
  v.records("suites", r.suites, "path", "hash");
  v("shard", r.shard);
  v("seed_policy", r.seed_policy);
  v("warnings", r.warnings);
}

}  // namespace fla::reports
