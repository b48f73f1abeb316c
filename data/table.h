#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace saccade::data {

/// A table in text (RFC 4180 and what is near it): fields between commas, semicolons or tabs, in double quotes where
/// they hold such or line ends; lines ended by LF, CRLF or CR; a byte order mark before the first. Empty lines are
/// passed over.
struct Table {
  struct Row {
    int64_t line;  ///< in the file, from 1, where the row begins
    std::vector<std::string> fields;
  };
  char delimiter = ',';   ///< 0: rows are of one field
  std::vector<Row> rows;  ///< a header, if there is one, is the first
};

/// Throws saccade::Error, with the line, for a quote that does not end, text after a quote, rows of different lengths,
/// and for what is no text. `name` is for messages.
Table parse_table(const std::string& name, const std::string& text);

}  // namespace saccade::data
