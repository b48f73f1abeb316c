#include <fmt/format.h>
#include <gmock/gmock.h>
#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>

#include <functional>

#include "data/folders.h"
#include "data/goldens.h"

namespace saccade::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

/// Ten photos, photos/0.jpg to photos/9.jpg, and tables beside them.
class ImageTable : public testing::Test {
 protected:
  ImageTable() {
    for (int i = 0; i < 10; ++i) photo(fmt::format("photos/{}.jpg", i));
  }
  void photo(const std::string& name) const { folder.write(name, golden::bytes("gray.jpg")); }
  /// Writes a table and returns its path.
  std::string table(const std::string& text, const std::string& name = "labels.csv") const {
    return folder.write(name, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  /// Ten rows: what `path` makes of 0 to 9, the delimiter, and cat or dog in turn.
  template <class Path>
  static std::string rows(Path path, const std::string& delimiter = ",") {
    std::string text;
    for (int i = 0; i < 10; ++i) text += fmt::format("{}{}{}\n", path(i), delimiter, i % 2 == 0 ? "cat" : "dog");
    return text;
  }
  static std::string from_table(int i) { return fmt::format("photos/{}.jpg", i); }
  std::string without_folder(std::string_view text) const {
    std::string out;
    const std::string path = folder.path.string() + "/";
    for (size_t at; (at = text.find(path)) != std::string_view::npos;) {
      out += text.substr(0, at);
      text.remove_prefix(at + path.size());
    }
    return out.append(text);
  }
  std::string said(const std::string& path) const { return without_folder(labelled_pair(path, "").summary); }
  std::string refused(const std::string& text, const std::string& name = "labels.csv") const {
    const std::string path = table(text, name);
    try {
      labelled_pair(path, "");
    } catch (const Error& error) {
      return without_folder(error.what());
    }
    return "";
  }
  const TemporaryFolder folder;
};

const char* const kTenOfTwo = "labels.csv: 10 images of 2 classes (cat 5, dog 5), every fifth to judge by";

TEST_F(ImageTable, PathsAndLabelsUnderHeadersOfAnyName) {
  for (const char* header : {"path,label", "filename,species", "image_id,class", "x,y", "Bild,Art"}) {
    const std::string path = table(fmt::format("{}\n{}", header, rows(from_table)));
    const LabelledPair pair = labelled_pair(path, "");
    EXPECT_THAT(without_folder(pair.summary), HasSubstr(kTenOfTwo)) << header;
    EXPECT_EQ(pair.train.size() + pair.test.size(), 10);
    EXPECT_EQ(pair.train.class_names, (std::vector<std::string>{"cat", "dog"}));
    EXPECT_EQ(pair.train.key(0), (folder.path / "photos/0.jpg").string());
    EXPECT_EQ(pair.train.label(0), 0);
    EXPECT_EQ(pair.test.key(1), (folder.path / "photos/9.jpg").string()) << "of each class the fifth";
    EXPECT_EQ(pair.test.label(1), 1);
    Image image;
    pair.train.read(0, 0, image);
  }
  EXPECT_EQ(said(table("path,label\n" + rows(from_table))),
            fmt::format("{}; paths from column 1, path, classes from column 2, label", kTenOfTwo));
  EXPECT_EQ(said(table(rows(from_table))), fmt::format("{}; paths from column 1, classes from column 2", kTenOfTwo))
      << "no header";
}

TEST_F(ImageTable, OfAnyDelimiterOrderAndLineEnd) {
  std::string labels_first = "label\tpath\n";
  for (int i = 0; i < 10; ++i) labels_first += fmt::format("{}\tphotos/{}.jpg\n", i % 2 == 0 ? "cat" : "dog", i);
  EXPECT_THAT(said(table(labels_first, "labels.csv")), HasSubstr("paths from column 2, path, classes from column 1"));
  EXPECT_THAT(said(table("path;label\n" + rows(from_table, ";"))), HasSubstr(kTenOfTwo));
  EXPECT_THAT(said(table(rows(from_table, " "))), HasSubstr(kTenOfTwo)) << "as lists of ImageNet's";
  std::string crlf = "\xef\xbb\xbfpath,label\n" + rows(from_table);
  for (size_t at = 0; (at = crlf.find('\n', at)) != std::string::npos; at += 2) crlf.insert(at, 1, '\r');
  EXPECT_THAT(said(table(crlf)), HasSubstr(kTenOfTwo));
  std::string quoted = "\"path\",\"label\"\n";
  for (int i = 0; i < 10; ++i) quoted += fmt::format("\"photos/{}.jpg\",\"{}\"\n", i, i < 5 ? "cat, tabby" : "dog");
  EXPECT_THAT(said(table(quoted)), HasSubstr("10 images of 2 classes (cat, tabby 5, dog 5)"));
}

TEST_F(ImageTable, PathsMayBeWrittenInManyWays) {
  const std::string root = folder.path.string();
  const auto ways = std::vector<std::function<std::string(int)>>{
      [&](int i) { return fmt::format("{}/photos/{}.jpg", root, i); },
      [](int i) { return fmt::format("./photos/{}.jpg", i); },
      [](int i) { return fmt::format("/photos/{}.jpg", i); },
      [](int i) { return fmt::format("photos\\{}.jpg", i); },
      [](int i) { return fmt::format("{}.jpg", i); },
      [](int i) { return fmt::format("{}", i); },
      [](int i) { return fmt::format("photos/{}", i); },
  };
  for (const auto& way : ways) {
    const LabelledPair pair = labelled_pair(table("path,label\n" + rows(way)), "");
    EXPECT_THAT(without_folder(pair.summary), HasSubstr(kTenOfTwo)) << way(3);
    EXPECT_EQ(pair.test.label(0), 0);
    EXPECT_EQ(fs::path(pair.test.key(0)).lexically_normal(), folder.path / "photos/8.jpg") << way(3);
  }
  // A table elsewhere, with paths from the folder that programs run in.
  const TemporaryFolder elsewhere;
  const fs::path was = fs::current_path();
  fs::current_path(folder.path);
  const std::string text = "path,label\n" + rows(from_table);
  const std::string path = elsewhere.write("t.csv", {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  const LabelledPair pair = labelled_pair(path, "");
  fs::current_path(was);
  EXPECT_EQ(pair.test.key(0), (folder.path / "photos/8.jpg").string()) << "whatever folder is the current one later";
}

TEST_F(ImageTable, NumbersOfClassesAreNoNamesOfFiles) {
  std::string text = "label,id\n";
  for (int i = 0; i < 10; ++i) text += fmt::format("{},{}\n", i % 2, i);  // there are photos 0 and 1
  EXPECT_THAT(said(table(text)), HasSubstr("10 images of 2 classes (0 5, 1 5)"));
  EXPECT_EQ(open_images(table(text)).size(), 10);
}

TEST_F(ImageTable, FilesBelowAreFoundByTheEndOfTheirPath) {
  for (int i = 0; i < 10; ++i) photo(fmt::format("deep/er/{}/{}.jpg", i % 2 == 0 ? "cat" : "dog", i / 2));
  const auto way = [](int i) { return fmt::format("{}/{}.jpg", i % 2 == 0 ? "cat" : "dog", i / 2); };
  EXPECT_EQ(labelled_pair(table("path,label\n" + rows(way)), "").test.key(0),
            (folder.path / "deep/er/cat/4.jpg").string());
  // 0 to 4 are the names of three images each: which is meant is not guessed.
  EXPECT_EQ(refused("path,label\n" + rows([](int i) { return fmt::format("{}.jpg", i); })),
            "labels.csv, line 2: there are several files called 0.jpg (5 lines name none: 2, 3, 4, 5, 6); paths count "
            "from the folder of the table");
}

TEST_F(ImageTable, AColumnOfSplitsMakesParts) {
  std::string text = "path,label,subset\n";
  for (int i = 0; i < 10; ++i)
    text += fmt::format("photos/{}.jpg,{},{}\n", i, i % 2 == 0 ? "cat" : "dog",
                        i < 6   ? "Train"
                        : i < 8 ? "val"
                                : "TEST");
  EXPECT_EQ(
      said(table(text)),
      "labels.csv: train has 6 images of 2 classes (cat 3, dog 3) to learn from; test has 2 images of 2 classes (cat "
      "1, dog 1) to judge by; val is left out; paths from column 1, path, classes from column 2, label");
  EXPECT_EQ(open_images(table(text)).size(), 10) << "all of them count where nothing is judged";

  std::string unlabelled = "path,label,split\n";
  for (int i = 0; i < 10; ++i)
    unlabelled += fmt::format("photos/{}.jpg,{},{}\n", i,
                              i >= 8       ? ""
                              : i % 2 == 0 ? "cat"
                                           : "dog",
                              i < 6   ? "train"
                              : i < 8 ? "val"
                                      : "test");
  EXPECT_THAT(said(table(unlabelled)), HasSubstr("val has 2 images of 2 classes (cat 1, dog 1) to judge by"));
  EXPECT_THAT(said(table(unlabelled)), HasSubstr("2 lines have no class"));
  EXPECT_EQ(refused("path,label,split\nphotos/0.jpg,a,train\nphotos/1.jpg,b,holdout\n"),
            "labels.csv, line 3: the split is 'holdout', expected train, val or test");
}

TEST_F(ImageTable, OfSeveralColumnsTheLabelIsTheOneCalledSo) {
  std::string text = "id,path,width,Label,source\n";
  for (int i = 0; i < 10; ++i)
    text += fmt::format("{},photos/{}.jpg,640,{},{}\n", i, i, i % 2 == 0 ? "cat" : "dog", i % 3 == 0 ? "web" : "zoo");
  EXPECT_THAT(said(table(text)), HasSubstr("classes from column 4, Label"));
  text.replace(text.find("Label"), 5, "thing");
  EXPECT_EQ(refused(text),
            "labels.csv: which column is the label? It could be column 4, thing; column 5, source; call it 'label' in "
            "the first line, or leave two columns, path and label");
  EXPECT_EQ(open_images(table(text)).size(), 10) << "where labels are not asked for, that does not matter";
}

TEST_F(ImageTable, MissingFilesAreNamed) {
  EXPECT_EQ(refused("path,label\n" + rows(from_table) + "photos/none.jpg,cat\n"),
            "labels.csv, line 12: there is no file photos/none.jpg; paths count from the folder of the table");
  EXPECT_EQ(refused("path,label\na.jpg,cat\n" + rows(from_table) + "\"b\n.jpg\",dog\n"),
            "labels.csv, line 2: there is no file a.jpg (2 lines name none: 2, 13); paths count from the folder of the "
            "table");
  EXPECT_THAT(refused("path,label\nx.jpg,cat\ny.jpg,dog\n"),
              HasSubstr("labels.csv, line 2: no column names image files: is x.jpg one?"));
  EXPECT_THAT(refused("one line of text"), HasSubstr("no column names image files"));
  EXPECT_THAT(refused("\n\n"), HasSubstr("is empty"));
}

TEST_F(ImageTable, AnImageTwiceIsTakenOnceAndOfTwoClassesRefused) {
  EXPECT_THAT(said(table("path,label\n" + rows(from_table) + "./photos/3.jpg,dog\n")), HasSubstr(kTenOfTwo));
  const std::string both = "path,label\n" + rows(from_table) + "photos/3.jpg,cat\n";
  EXPECT_EQ(refused(both),
            "labels.csv, line 12: photos/3.jpg is of class cat here and of class dog in line 5; leave one "
            "of the lines");
  const Source source = open_images(table(both));
  EXPECT_EQ(source.size(), 10);
  EXPECT_EQ(source.label(3), -1);
  EXPECT_THAT(without_folder(source.summary), HasSubstr("passed over: 1 repeated lines"));
}

TEST_F(ImageTable, WithoutLabelsItIsAListOfImages) {
  std::string list;
  for (int i = 0; i < 10; ++i) list += fmt::format("photos/{}.jpg\n", 9 - i);
  const Source source = open_images(table(list, "list.txt"));
  EXPECT_EQ(source.size(), 10);
  EXPECT_FALSE(source.has_labels());
  EXPECT_EQ(source.key(0), (folder.path / "photos/9.jpg").string()) << "in the order of the lines";
  EXPECT_EQ(without_folder(source.summary), "list.txt: 10 images, paths from column 1");
  EXPECT_THAT(refused(list, "list.txt"), HasSubstr("there are no labels to evaluate with"));
  EXPECT_THAT(refused("path,label\nphotos/0.jpg,cat\nphotos/1.jpg,cat\n"), HasSubstr("are of one class, cat"));
}

TEST_F(ImageTable, NamesOfFilesAreAnyBytes) {
  const std::string odd = "caf\xe9, \"best\"\n#1.jpg";
  photo("photos/" + odd);
  std::string quoted;
  for (const char c : odd) quoted.append(c == '"' ? 2 : 1, c);
  const Source source = open_images(table(fmt::format("path,label\n\"photos/{}\",cat\nphotos/1.jpg,dog\n", quoted)));
  ASSERT_EQ(source.size(), 2);
  Image image;
  source.read(0, 0, image);
  EXPECT_EQ(without_folder(source.key(0)), "photos/caf\\xe9, \"best\"\\x0a#1.jpg");
}

}  // namespace
}  // namespace saccade::data
