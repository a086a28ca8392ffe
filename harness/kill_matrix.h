// Which net caught which planted fault.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "harness/result.h"

namespace fla::harness {

// What reported a failure: "compare" and "trust" for verdicts on numbers, otherwise the name of the check.
struct Reported {
  std::set<std::string> nets;
  std::string detail;  // of the first
};
Reported reported_by(const Result&);

class KillMatrix {
 public:
  // A fault that one of the `responsible` nets has to report; that others do as well or instead is shown, but
  // does not count.
  void planted(const std::string& layer, const std::string& fault, const std::string& subject,
               const std::set<std::string>& responsible, Reported);
  // Nothing is wrong here: no net may report.
  void clean(const std::string& layer, const std::string& subject, Reported);

  // Every net that is responsible for a fault.
  std::set<std::string> nets() const;
  // Whether every fault was caught and nothing right reported, with the net `without` switched off.
  bool complete(const std::string& without = "") const;

  std::string table(const std::string& without = "") const;    // fault x net
  std::string summary(const std::string& without = "") const;  // per layer, and every escape and false alarm
  std::string log() const;                                     // every planted fault

 private:
  struct Entry {
    std::string layer, fault, subject;
    std::set<std::string> responsible;  // empty: nothing is wrong
    Reported reported;
  };
  static bool caught(const Entry&, const std::string& without);
  static bool false_alarm(const Entry&, const std::string& without);

  std::vector<Entry> entries_;
};

}  // namespace fla::harness
