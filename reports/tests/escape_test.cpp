#include "reports/escape.h"

#include <gtest/gtest.h>

namespace fla::reports {
namespace {

constexpr const char* kBox = "\xEF\xBF\xBD";  // U+FFFD

TEST(Escape, CleanKeepsTextAndReplacesTheRest) {
  EXPECT_EQ(clean("µs, 漢字, 😀\n\t"), "µs, 漢字, 😀\n\t");
  EXPECT_EQ(clean("\x1B[31m"), std::string(kBox) + "[31m");  // terminal sequences
  EXPECT_EQ(clean(std::string_view("a\0b", 3)), std::string("a") + kBox + "b");
  EXPECT_EQ(clean("\xC2\x9B"), kBox);      // the one-byte form of ESC [
  EXPECT_EQ(clean("\xE2\x80\xAE"), kBox);  // right-to-left override
  EXPECT_EQ(clean("\xEF\xBF\xBF"), kBox);  // forbidden in XML
}

TEST(Escape, CleanAcceptsNothingThatIsNotUtf8) {
  EXPECT_EQ(clean("\xFF"), kBox);
  EXPECT_EQ(clean("\x80"), kBox);
  EXPECT_EQ(clean("\xC0\xAF"), std::string(kBox) + kBox);                        // "/" in two bytes
  EXPECT_EQ(clean("\xED\xA0\x80"), std::string(kBox) + kBox + kBox);             // half a surrogate pair
  EXPECT_EQ(clean("\xF4\x90\x80\x80"), std::string(kBox) + kBox + kBox + kBox);  // beyond U+10FFFF
  EXPECT_EQ(clean("a\xE6\xBC"), std::string("a") + kBox + kBox);                 // cut off
  EXPECT_EQ(clean("\xE6<b"), std::string(kBox) + "<b");  // does not swallow what follows
}

TEST(Escape, Markup) {
  EXPECT_EQ(escape_markup("<a href=\"x\" b='y'>&amp;"),
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
}

TEST(Escape, ScriptJsonHasNoOpeningBracket) {
  EXPECT_EQ(escape_script_json("\"</script><!--\""), "\"\\u003c/script>\\u003c!--\"");
}

TEST(Escape, WorkflowCommands) {
  EXPECT_EQ(escape_workflow_message("100%\n::error::x"), "100%25%0A::error::x");
  EXPECT_EQ(escape_workflow_property("a:b,c%"), "a%3Ab%2Cc%25");
}

TEST(Escape, Csv) {
  EXPECT_EQ(escape_csv("plain"), "plain");
  EXPECT_EQ(escape_csv("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
}

TEST(Escape, MarkdownCell) {
  EXPECT_EQ(escape_markdown_cell("a|b\n`c` <d> rms_norm"), "a\\|b \\`c\\` &lt;d> rms\\_norm");
}

}  // namespace
}  // namespace fla::reports
