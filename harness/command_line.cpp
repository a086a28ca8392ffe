#include "harness/command_line.h"

#include <cstdio>

#include "harness/case.h"
#include "harness/check_backends.h"
#include "reports/atomic_file.h"
#include "reports/escape.h"
#include "reports/json.h"

namespace fla::harness {

int run_command_line(CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  const auto complain = [&](const std::exception& error, int code) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), reports::one_line(error.what()).c_str());
    return code;
  };
  try {
    app.parse(argc, argv);
    return body();
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return complain(error, kUsage);
  } catch (const UsageError& error) {
    return complain(error, kUsage);
  } catch (const reports::FormatError& error) {
    return complain(error, kUsage);
  } catch (const NoDevice& error) {
    return complain(error, kNothingRan);
  } catch (const reports::WriteError& error) {
    return complain(error, kWriteFailed);
  } catch (const std::exception& error) {
    return complain(error, kFailed);
  }
}

}  // namespace fla::harness
