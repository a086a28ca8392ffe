#include "harness/result.h"
namespace fla::harness {
const char* name_of(CaseStatus s) {
  static const char* n[] = {"passed","failed","mistrusted","rejected","crashed","timeout","out_of_memory","skipped","listed","interrupted"};
  return n[int(s)];
}
bool is_failure(CaseStatus s) { return s!=CaseStatus::passed&&s!=CaseStatus::skipped&&s!=CaseStatus::listed&&s!=CaseStatus::interrupted; }
}
