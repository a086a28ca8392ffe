// Between the launch and the settings.
#pragma once

#include "emulator/settings.h"

namespace fla::detail::emulator {

// Counts and, if asked for, records the launch; returns the settings it runs under.
Settings note_launch(const LaunchRecord& launch);

}  // namespace fla::detail::emulator
