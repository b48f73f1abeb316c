#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <saccade/data/table.h>
#include <saccade/kernels/error.h>

namespace saccade::data {
namespace {

/// Rows as "[a|b] [c|d]".
std::string rows(const std::string& text) {
  std::string words;
  for (const Table::Row& row : parse_table("t", text).rows) {
    if (!words.empty()) words += ' ';
    words += fmt::format("[{}]", fmt::join(row.fields, "|"));
  }
  return words;
}

std::string error(const std::string& text) {
  try {
    parse_table("t", text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Table, LinesEndAsAnySystemEndsThem) {
  for (const char* text : {"a,b\nc,d\n", "a,b\r\nc,d\r\n", "a,b\rc,d", "a,b\n\n\r\nc,d\n\n",
                           "\xef\xbb\xbf"
                           "a,b\nc,d"})
    EXPECT_EQ(rows(text), "[a|b] [c|d]") << text;
}

TEST(Table, FieldsLieBetweenCommasSemicolonsOrTabs) {
  EXPECT_EQ(rows("a\tb\nc\td"), "[a|b] [c|d]");
  EXPECT_EQ(rows("a;b\nc;d"), "[a|b] [c|d]");
  EXPECT_EQ(rows("a;b;c,1\nd;e;f,2"), "[a|b|c,1] [d|e|f,2]") << "the first row has more of them";
  EXPECT_EQ(rows("a\nb\n"), "[a] [b]");
  EXPECT_EQ(rows(" a , b\nc,\t d "), "[a|b] [c|d]");
  EXPECT_EQ(rows("a,,\n,,b"), "[a||] [||b]");
  EXPECT_EQ(rows(""), "");
}

TEST(Table, QuotesHoldWhatWouldEndAField) {
  EXPECT_EQ(rows("\"a,b\",c\nd,\"e\"\"f\"\n"), "[a,b|c] [d|e\"f]");
  EXPECT_EQ(rows("\"a\nb\",c\nd,e"), "[a\nb|c] [d|e]");
  EXPECT_EQ(rows("\"a,b,c\"\td\ne\tf"), "[a,b,c|d] [e|f]") << "a delimiter within quotes is none";
  EXPECT_EQ(rows("\" a \" ,b"), "[ a |b]");
  EXPECT_EQ(rows("6\" x 4\",b"), "[6\" x 4\"|b]") << "quotes within a field are text";
  EXPECT_EQ(parse_table("t", "\"a\nb\",c\n\nd,e").rows[1].line, 4);
}

TEST(Table, WhatIsWrongIsSaidWithItsLine) {
  EXPECT_EQ(error("a,b\nc,\"d\ne"), "t, line 2: the quote that begins here does not end");
  EXPECT_EQ(error("a,b\n\"c\"x,d"),
            "t, line 2: there is text after a closing quote; a quote within quotes is written twice");
  EXPECT_EQ(error("a,b\nc,d\ne,f,g"),
            "t, line 3: expected 2 fields as in line 1, got 3; put a field that holds a ',' in double quotes");
  EXPECT_EQ(error("\xff\xfe"
                  "a"),
            "t: is UTF-16, as some programs save tables: save it as CSV in UTF-8");
  EXPECT_EQ(error(std::string("a\0b", 3)), "t: is neither an IDX file nor a table of paths and labels (CSV, TSV)");
}

}  // namespace
}  // namespace saccade::data
