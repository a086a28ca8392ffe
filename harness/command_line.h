// What the programs' main functions share: options in, exit code out, every error one line.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace fla::harness {

// Parses, then runs the body, whose return value is the exit code. What is thrown on the way becomes one line on standard error
// behind the program's name, and its exit code (result.h).
int run_command_line(CLI::App&, int argc, char** argv, const std::function<int()>& body);

}  // namespace fla::harness
