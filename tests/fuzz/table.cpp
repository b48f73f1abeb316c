#include <saccade/data/table.h>

#include "target.h"

namespace {

/// The table with every field in quotes.
std::string quoted(const saccade::data::Table& table) {
  std::string text;
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.fields.size(); ++i) {
      if (i > 0) text += table.delimiter;
      text += '"';
      for (const char c : row.fields[i]) text += c == '"' ? std::string("\"\"") : std::string(1, c);
      text += '"';
    }
    text += '\n';
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  data::Table table;
  try {
    table = data::parse_table("table", std::string(data, data + size));
  } catch (const Error&) {
    return 0;
  }
  const data::Table again = data::parse_table("table in quotes", quoted(table));
  fuzz::require(again.rows.size() == table.rows.size(), "a table that is written and read again has as many rows");
  for (size_t i = 0; i < table.rows.size(); ++i) {
    fuzz::require(table.rows[i].fields.size() == table.rows[0].fields.size(), "all rows have as many fields");
    fuzz::require(again.rows[i].fields == table.rows[i].fields, "fields that are written and read again are the same");
  }
  return 0;
}
