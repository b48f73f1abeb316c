#include <gtest/gtest.h>
#include <saccade/core/io/toml.h>
#include <saccade/core/random.h>
#include <saccade/kernels/error.h>

#include <map>

#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using test::complaint;

std::vector<std::string> values_of(const std::string& value) {
  return parse_toml("key = " + value + "\n", "a.toml").at(0).values;
}

TEST(Toml, WritesWhatItsSpecificationReadsAsTheSameText) {
  // The right sides were read with Python's tomllib, a reader of TOML 1.0.
  const std::map<std::string, std::string> cases{
      {"photos", R"("photos")"},
      {"#1 best", R"("#1 best")"},
      {" a ", R"(" a ")"},
      {R"(C:\new "x")", R"("C:\\new \"x\"")"},
      {"it's", R"("it's")"},
      {"a\nb\tc\r\x7f\x01", R"("a\nb\tc\u000d\u007f\u0001")"},
      {"fotografía", R"("fotografía")"},
      {"", R"("")"},
      {"7", "7"},
      {"007", R"("007")"},
      {"1e5", R"("1e5")"},
      {"0.05", "0.05"},
      {"1e-06", "1e-06"},
      {"1.0", R"("1.0")"},
      {"-0", R"("-0")"},
      {"18446744073709551615", R"("18446744073709551615")"},
      {"nan", R"("nan")"},
      {"true", "true"},
      {"2024-01-01", R"("2024-01-01")"},
      {"[a, b]", R"("[a, b]")"},
      {"100%\xff", R"({bytes = "100%25%ff"})"},
      {"100%", R"("100%")"},
  };
  for (const auto& [text, written] : cases) {
    EXPECT_EQ(toml_value(text), written);
    EXPECT_EQ(values_of(written), std::vector<std::string>{text}) << written;
  }
  EXPECT_EQ(toml_array(std::vector<std::string>{"a,b", "1", "\""}), R"(["a,b", 1, "\""])");
}

TEST(Toml, AnyBytesComeBack) {
  Philox random(7);
  // Bytes that mean something in TOML, in UTF-8 or to a shell are drawn more often than others.
  const std::string often = "#\"'\\=[]{},%\n\r\t 0123456789.eE+-_abc\xc3\xa9\xed\xa0\xf4\x8f\xbf\xe2\x80\xa8";
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::string> texts(1 + random.below(3));
    for (std::string& text : texts) {
      const size_t length = random.below(12);
      for (size_t c = 0; c < length; ++c)
        text += random.below(4) == 0 ? static_cast<char>(1 + random.below(255))
                                     : often[random.below(static_cast<uint32_t>(often.size()))];
    }
    ASSERT_EQ(values_of(toml_array(texts)), texts) << toml_array(texts);
    ASSERT_EQ(values_of(toml_value(texts[0])), std::vector<std::string>{texts[0]}) << toml_value(texts[0]);
  }
}

TEST(Toml, ReadsWhatPeopleWrite) {
  const auto settings = parse_toml(
      "\xef\xbb\xbf# mine\r\nlr = 1e-3 # small\r\n\r\nseed=0x10\ncrops = '''2x96'''\n"
      "mean = [ 0.5, 0.5, # red and green\n 0.5 ]\n\"data\" = \"\"\"\na\n\"\"\"\nhead-bn = false\nepochs = 1_000",
      "a.toml");
  std::vector<std::string> seen;
  for (const TomlSetting& s : settings) {
    std::string line = std::to_string(s.line) + " " + s.key;
    for (const std::string& value : s.values) line += "|" + value;
    seen.push_back(line);
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"2 lr|0.001", "4 seed|16", "5 crops|2x96", "6 mean|0.5|0.5|0.5",
                                            "8 data|a\n", "11 head-bn|false", "12 epochs|1000"}));
}

TEST(Toml, ReadsTextsAndNumbersAsItsSpecificationHasThem) {
  // The left sides were read with Python's tomllib.
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"("\b\t\f\u00e9\U0001F600")", "\b\t\f\u00e9\U0001F600"},
      {R"('C:\n"')", "C:\\n\""},
      {"\"\"\"\r\na\r\nb\"\"\"", "a\nb"},
      {"\"\"\"a \\ \n\n   b\"\"\"", "a b"},
      {R"(""""a""""")", R"("a"")"},
      {"''''a''''", "'a'"},
      {R"('''\u''')", R"(\u)"},
      {"0xDEAD_beef", "3735928559"},
      {"0o17", "15"},
      {"0b101", "5"},
      {"+5", "5"},
      {"-9223372036854775808", "-9223372036854775808"},
      {"5e+02", "500"},
      {"-1_0.2_5E-1", "-1.025"},
      {"-inf", "-inf"},
  };
  for (const auto& [written, text] : cases) EXPECT_EQ(values_of(written), std::vector<std::string>{text}) << written;
  EXPECT_EQ(values_of("[ ]"), std::vector<std::string>{});
  EXPECT_EQ(values_of("[\n'a', # a\n'b'\n,]"), (std::vector<std::string>{"a", "b"}));
  for (const std::string bad :
       {"01", "1.",   ".5",       "1e",        "1__0",  "_1",    "1_",  "+0x1",    "0x",       "0x_1", "--1",  "True",
        "é",  "'''a", "\"a\nb\"", R"("\u12")", "[1 2]", "[, 1]", "1 2", "'a' 'b'", "\"\x01\"", "1\r2", "1e400"})
    EXPECT_NE(complaint<Error>([&] { values_of(bad); }), "") << bad;
}

TEST(Toml, WhatIsNoSettingIsNamedWithItsLine) {
  const auto said = [](const std::string& text) { return complaint<Error>([&] { parse_toml(text, "a.toml"); }); };
  for (const std::string bad : {"lr = much", "lr 1", "lr = \"1", "lr = [1", "lr = 1\nlr = 2", "lr = \"\\q\"",
                                "lr = \xff", "lr = 99999999999999999999", "a = \"\\ud800\"", "= 1"})
    EXPECT_TRUE(said("# a comment\n" + bad).starts_with("a.toml, line ")) << bad << ": " << said("# a comment\n" + bad);
  for (const std::string nested :
       {"[part]\nlr = 1", "[[[part]]]", "a.b = 1", "lr = [[1]]", "lr = 2024-01-01", "lr = {a = 1}",
        "lr = {bytes = \"%f\"}", "lr = {bytes = \"%0x\"}", "lr = {bytes = 1}"})
    EXPECT_NE(said("x = 1\n" + nested).find("line 2: "), std::string::npos)
        << nested << ": " << said("x = 1\n" + nested);
  EXPECT_NE(said("x = " + std::string(100000, '[')), "");
  EXPECT_NE(said("x = " + std::string(100000, '{')), "");
}

}  // namespace
}  // namespace saccade::io
