// Which net caught which planted fault.
#pragma once

#include <map>
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
  // Whatever the net `without` reports is not seen. Empty: all nets hang.
  explicit KillMatrix(std::string without) : without_(std::move(without)) {}

  // A fault that one of the `responsible` nets has to report; that others do as well or instead is shown, but
  // does not count.
  void planted(const std::string& layer, const std::string& fault, const std::string& subject,
               const std::set<std::string>& responsible, Reported);
  // Nothing is wrong here: no net may report.
  void clean(const std::string& layer, const std::string& subject, Reported);

  int planted_count() const { return planted_; }
  int caught_count() const { return caught_; }
  bool complete() const { return planted_ > 0 && escapes_.empty() && false_alarms_.empty(); }

  std::string table() const;     // fault x net
  std::string summary() const;   // per layer, and every escape
  std::string log() const { return log_; }

 private:
  struct Row {
    std::string layer, fault;
    int planted = 0, caught = 0;
    std::map<std::string, int> nets;
  };
  struct Share {
    int planted = 0, caught = 0, clean = 0, false_alarms = 0;
  };

  Row& row(const std::string& layer, const std::string& fault);
  void see(Reported&) const;

  std::string without_, log_;
  std::vector<Row> rows_;
  std::map<std::string, Share> layers_;
  std::vector<std::string> escapes_, false_alarms_;
  int planted_ = 0, caught_ = 0;
};

}  // namespace fla::harness
