#include <fcntl.h>
#include <gmock/gmock.h>
#include <saccade/data/evaluate.h>
#include <saccade/data/listing.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "data/folders.h"
#include "data/goldens.h"

namespace saccade::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

std::vector<std::string> paths(const Listing& listing, const std::vector<Listing::File>& files) {
  std::vector<std::string> all;
  for (const Listing::File& file : files) all.push_back(listing.path_of(file).substr(listing.root.size() + 1));
  return all;
}
std::vector<std::string> images_below(const TemporaryFolder& folder) {
  const Listing listing = list_tree(folder.path.string());
  return paths(listing, listing.images);
}

void write(const TemporaryFolder& folder, const std::string& name, std::string_view text) {
  folder.write(name, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

TEST(Listing, WhatIsHiddenOrLeftBySystemsIsPassedOverAndCounted) {
  const TemporaryFolder folder;
  const auto photo = golden::bytes("gray.jpg");
  for (const char* name : {"a.jpg",
                           "sub/b.jpg",
                           ".hidden.jpg",
                           "._a.jpg",
                           "sub/._b.jpg",
                           ".ipynb_checkpoints/a-checkpoint.jpg",
                           "sub/.ipynb_checkpoints/b-checkpoint.jpg",
                           ".Trash-1000/files/c.jpg",
                           ".thumbnails/t.png",
                           "__MACOSX/._a.jpg",
                           "__MACOSX/sub/plain.jpg",
                           "sub/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
                           "$RECYCLE.BIN/S-1-5/$R1.jpg",
                           "$Recycle.Bin/x.jpg",
                           "lost+found/1.jpg",
                           "Thumbs.db",
                           "sub/thumbs.DB",
                           "desktop.ini",
                           "System Volume Information/x.jpg",
                           "__pycache__/x.jpg",
                           "#recycle/x.jpg"}) {
    folder.write(name, photo);
  }
  // What only resembles these is an image like any other.
  for (const char* name : {"MACOSX/1.jpg", "recycle/2.jpg", "lost/3.jpg", "_/4.jpg", "@/5.jpg", "a.hidden.jpg"})
    folder.write(name, photo);
  const Listing listing = list_tree(folder.path.string());
  EXPECT_THAT(paths(listing, listing.images), ElementsAre("a.hidden.jpg", "a.jpg", "@/5.jpg", "MACOSX/1.jpg", "_/4.jpg",
                                                          "lost/3.jpg", "recycle/2.jpg", "sub/b.jpg"));
  const std::string rest = listing.passed_over.words(20);
  EXPECT_THAT(rest, HasSubstr("7 hidden"));
  for (const char* words :
       {"1 __MACOSX", "1 @eaDir", "1 $RECYCLE.BIN", "1 $Recycle.Bin", "1 lost+found", "1 Thumbs.db", "1 thumbs.DB",
        "1 desktop.ini", "1 System Volume Information", "1 __pycache__", "1 #recycle"})
    EXPECT_THAT(rest, HasSubstr(words));
  EXPECT_EQ(listing.passed_over.total(), 7 + 11);
}

TEST(Listing, AFileIsAnImageByItsContent) {
  const TemporaryFolder folder;
  const auto photo = golden::bytes("gray.jpg");
  for (const char* name : {"a.jpg", "b.jfif", "c.jpe", "d.JPEG", "noextension", "e.jpg_large", "f.jpg~", "g.jpg?w=300",
                           "h.bak", "i.", "j.dat", "k.2019", "l.jpg copy"})
    folder.write(name, photo);
  folder.write("m", golden::bytes("gray8.png"));
  folder.write("n.image", golden::bytes("gray.pgm"));
  folder.write("o.dib", golden::bytes("gray.bmp"));
  folder.write("p.bitmap", golden::bytes("gray.bmp"));
  folder.write("q.bin", golden::bytes("lossy.webp"));
  const Listing listing = list_tree(folder.path.string());
  EXPECT_EQ(listing.images.size(), 18);
  EXPECT_EQ(words_of_rest(listing), "");
  std::vector<std::string> kinds;
  for (const Listing::File& file : listing.images) kinds.push_back(listing.kinds[static_cast<size_t>(file.kind)]);
  EXPECT_THAT(kinds, ElementsAre(".jpg", ".jfif", ".jpe", ".jpeg", ".jpg_large (JPEG)", "JPEG", "JPEG", ".bak (JPEG)",
                                 "JPEG", ".dat (JPEG)", ".2019 (JPEG)", "JPEG", "PNG", ".image (PNM)", "JPEG", ".dib",
                                 ".bitmap (BMP)", ".bin (WebP)"));
  // All of them are read.
  const Source source = data::folder(folder.path.string());
  Image image;
  for (int64_t i = 0; i < source.size(); ++i) EXPECT_NO_THROW(source.read(i, 0, image)) << source.key(i);
}

TEST(Listing, WhatIsNoImageIsCountedByKind) {
  const TemporaryFolder folder;
  folder.write("photo.jpg", golden::bytes("gray.jpg"));
  for (int i = 0; i < 12; ++i) write(folder, "clips/" + std::to_string(i) + ".MOV", "....ftypqt  ");
  for (const char* name : {"a.txt", "b.txt", "c.TXT"}) write(folder, name, "text");
  write(folder, "Makefile", "all:\n");
  write(folder, "BMW", "BMW cars are not bitmaps");
  write(folder, "notes.weird", "P7 of the plan");
  write(folder, "empty", "");
  write(folder, "movie", std::string("\0\0\0\x18", 4) + "ftypmp42" + std::string(20, '\0'));
  write(folder, "page", "<!DOCTYPE html><html>");
  write(folder, "photo.lfs", "version https://git-lfs.github.com/spec/v1\n");
  write(folder, "archive.jar", "PK\3\4...................................");
  const Listing listing = list_tree(folder.path.string());
  EXPECT_THAT(paths(listing, listing.images), ElementsAre("photo.jpg"));
  EXPECT_EQ(words_of_rest(listing),
            "passed over: 12 .mov, 4 without an extension, 3 .txt, 1 .jar, 1 .lfs, 1 .weird, 1 empty");
}

TEST(Listing, ImagesOfFormatsThatAreNotReadAreNamed) {
  const TemporaryFolder folder;
  write(folder, "a.nef", std::string("II*\0\x08\0\0\0", 8));  // a TIFF by its content
  write(folder, "b.cr2", std::string("II*\0\x10\0\0\0CR\2\0", 12));
  write(folder, "c.heic", std::string("\0\0\0\x18", 4) + "ftypheic");
  write(folder, "d.HEIC", std::string("\0\0\0\x18", 4) + "ftypmif1");
  write(folder, "e.avif", std::string("\0\0\0\x1c", 4) + "ftypavif");
  write(folder, "f", std::string("FOVb") + std::string(20, '\0'));
  const Listing listing = list_tree(folder.path.string());
  EXPECT_TRUE(listing.images.empty());
  EXPECT_TRUE(listing.passed_over.empty()) << listing.passed_over.words();
  EXPECT_EQ(words_of_rest(listing),
            "of formats that are not read (convert them to JPEG or PNG): 2 .heic (HEIC), 1 .avif (AVIF), "
            "1 .cr2 (camera raw), 1 .nef (camera raw), 1 camera raw");
}

TEST(Listing, AKnownExtensionDecidesWithoutALook) {
  const TemporaryFolder folder;
  write(folder, "broken.jpg", "no JPEG");  // left out, with its reason, when it is read
  folder.write("photo.txt", golden::bytes("gray.jpg"));
  EXPECT_THAT(images_below(folder), ElementsAre("broken.jpg"));
}

TEST(Listing, NamesAreAnyBytes) {
  const TemporaryFolder folder;
  const auto photo = golden::bytes("gray.jpg");
  const std::vector<std::string> names{
      " ",        "#1 best.jpg",         "%s%n.jpg", "-rf.jpg", "\"q\".jpg", "'.jpg",        "a\nb.jpg",
      "a\tb",     "back\\.jpg",          "*.jpg",    "{}.jpg",  "\x01.jpg",  "\xc3\xa9.jpg", "\xe9.jpg",
      "\xff\xfe", "\xf0\x9f\x90\x88.jpg"};
  for (const std::string& name : names) folder.write("\xe9t\xe9\n/" + name, photo);
  const Source source = data::folder(folder.path.string());
  ASSERT_EQ(source.size(), std::ssize(names));
  Image image;
  for (int64_t i = 0; i < source.size(); ++i) {
    EXPECT_NO_THROW(source.read(i, 0, image)) << source.key(i);
    EXPECT_EQ(source.key(i).find_first_of("\n\t\x01\xff"), std::string::npos);
  }
  EXPECT_THAT(source.key(0), HasSubstr("\\xe9t\\xe9\\x0a/"));
  EXPECT_EQ(source.summary.find('\n'), std::string::npos);

  const TemporaryFolder longest;
  const std::string name = std::string(251, 'x') + ".jpg";
  longest.write(name, photo);
  EXPECT_THAT(images_below(longest), ElementsAre(name));
}

TEST(Listing, LinksAreFollowedAndEachFileIsTakenOnce) {
  const TemporaryFolder folder, elsewhere;
  folder.write("a/1.jpg", golden::bytes("gray.jpg"));
  folder.write("a/2.jpg", golden::bytes("gray.jpg"));
  elsewhere.write("3.jpg", golden::bytes("gray.jpg"));
  fs::create_symlink("1.jpg", folder.path / "a/0.jpg");                 // to a file that is there itself
  fs::create_directory_symlink(folder.path / "a", folder.path / "b");   // to a folder beside it
  fs::create_symlink(elsewhere.path / "3.jpg", folder.path / "c.jpg");  // twice to a file that lies elsewhere
  fs::create_directory_symlink(elsewhere.path, folder.path / "d");
  Listing listing = list_tree(folder.path.string());
  EXPECT_THAT(paths(listing, listing.images),
              ElementsAre("c.jpg", "a/0.jpg", "a/1.jpg", "a/2.jpg", "b/0.jpg", "b/1.jpg", "b/2.jpg", "d/3.jpg"));
  EXPECT_EQ(drop_repeats(listing, listing.images), 5);
  EXPECT_THAT(paths(listing, listing.images), ElementsAre("c.jpg", "a/1.jpg", "a/2.jpg"));
  // A root that is a link is the folder it leads to.
  fs::create_directory_symlink(folder.path / "a", elsewhere.path / "root");
  EXPECT_EQ(list_tree((elsewhere.path / "root/").string()).images.size(), 3);
}

TEST(Listing, LinksInACircleEnd) {
  const TemporaryFolder folder;
  folder.write("a/1.jpg", golden::bytes("gray.jpg"));
  fs::create_directory_symlink(folder.path, folder.path / "a/up");
  fs::create_directory_symlink(folder.path.parent_path(), folder.path / "a/upper");
  fs::create_directory_symlink("self", folder.path / "self");
  // Folders that lead to all the others: as many ways through them as there are orders, were they not remembered.
  for (int i = 0; i < 12; ++i) fs::create_directory(folder.path / std::to_string(i));
  for (int i = 0; i < 12; ++i)
    for (int j = 0; j < 12; ++j)
      fs::create_directory_symlink(folder.path / std::to_string(j),
                                   folder.path / std::to_string(i) / std::to_string(j));
  Listing listing = list_tree(folder.path.string());
  drop_repeats(listing, listing.images);
  EXPECT_THAT(paths(listing, listing.images), ElementsAre("a/1.jpg"));
  EXPECT_THAT(words_of_rest(listing), HasSubstr("linked in a circle"));
  EXPECT_THAT(words_of_rest(listing), HasSubstr("1 behind a broken link"));
}

/// As an ordinary user, for whom files may be closed: root may open everything.
struct AsNobody {
  AsNobody() : was(geteuid()) { is = was != 0 || seteuid(65534) == 0; }
  ~AsNobody() { EXPECT_EQ(seteuid(was), 0); }
  uid_t was;
  bool is;
};

TEST(Listing, AFolderThatMayNotBeListedIsNamedAndStopsNothing) {
  const TemporaryFolder folder;
  folder.write("open/1.jpg", golden::bytes("gray.jpg"));
  folder.write("closed/2.jpg", golden::bytes("gray.jpg"));
  folder.write("open/closed too/3.jpg", golden::bytes("gray.jpg"));
  folder.write("open/secret", golden::bytes("gray.jpg"));
  const auto close = [&](const char* name) { fs::permissions(folder.path / name, fs::perms::none); };
  for (const char* name : {"closed", "open/closed too", "open/secret"}) close(name);
  fs::permissions(folder.path, static_cast<fs::perms>(0755));
  Listing listing;
  std::string of_closed_root;
  {
    const AsNobody nobody;
    if (!nobody.is) GTEST_SKIP() << "the user cannot be changed";
    listing = list_tree(folder.path.string());
    try {
      list_tree((folder.path / "closed").string());
    } catch (const Error& error) {
      of_closed_root = error.what();
    }
  }
  for (const char* name : {"closed", "open/closed too"}) fs::permissions(folder.path / name, fs::perms::owner_all);
  EXPECT_THAT(paths(listing, listing.images), ElementsAre("open/1.jpg"));
  EXPECT_EQ(words_of_rest(listing),
            "passed over: 1 that may not be read; folders that cannot be listed: closed (Permission denied), "
            "open/closed too (Permission denied)");
  EXPECT_THAT(of_closed_root, HasSubstr("the folder cannot be listed: Permission denied"));
}

TEST(Listing, TreesAreAsDeepAsTheyLike) {
  const TemporaryFolder folder;
  std::string path;
  for (int i = 0; i < 200; ++i) path += "d/";
  folder.write(path + "1.jpg", golden::bytes("gray.jpg"));
  EXPECT_THAT(images_below(folder), ElementsAre(path + "1.jpg"));
  // Beyond the longest path that systems open, files cannot be read by their path: they are counted.
  int at = open(folder.path.c_str(), O_DIRECTORY | O_RDONLY);
  for (int i = 0; i < 30; ++i) {
    const std::string name(200, 'x');
    ASSERT_EQ(mkdirat(at, name.c_str(), 0755), 0);
    const int within = openat(at, name.c_str(), O_DIRECTORY | O_RDONLY);
    close(at);
    at = within;
  }
  close(at);
  const Listing listing = list_tree(folder.path.string());
  EXPECT_EQ(listing.images.size(), 1);
  EXPECT_THAT(words_of_rest(listing), HasSubstr("1 of too long a path"));
}

TEST(Listing, IdxFilesAreToldByContentCompressedToo) {
  const TemporaryFolder folder;
  const std::string header("\0\0\x08\x03\0\0\0\x05\0\0\0\x02\0\0\0\x02", 16);
  write(folder, "digits", header + std::string(20, '\1'));
  write(folder, "train-images.idx3-ubyte", header + std::string(20, '\1'));
  write(folder, "zeros.raw", std::string(100, '\0'));
  for (const auto& [name, text] : {std::pair{"a.gz", header}, std::pair{"text.gz", std::string("text")}}) {
    gzFile file = gzopen((folder.path / name).c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
  }
  write(folder, "broken.gz", "\x1f\x8b\x08 and no more");
  const Listing listing = list_tree(folder.path.string());
  EXPECT_THAT(paths(listing, listing.idx_files), ElementsAre("a.gz", "digits", "train-images.idx3-ubyte"));
  EXPECT_EQ(words_of_rest(listing), "passed over: 2 .gz, 1 .raw");
}

/// Seconds of the processor's time, the least of three: the files' names are then in memory, and others who use the
/// machine do not count.
template <class Function>
double seconds_of(Function function) {
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t start = std::clock();
    function();
    least = std::min(least, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return least;
}

TEST(ListingLong, TwoHundredThousandFilesTakeLessThanTwoSeconds) {
  for (const char* extension : {".jpg", ""}) {  // told by their names, and each one opened
    const TemporaryFolder folder;
    for (int i = 0; i < 200000; ++i) {
      const auto within = folder.path / (i % 2 == 0 ? "train" : "val") / std::to_string(i / 2000);
      if (i % 2000 < 2) fs::create_directories(within);
      close(open((within / (std::to_string(i) + extension)).c_str(), O_CREAT | O_WRONLY, 0600));
    }
    const std::string root = folder.path.string();
    Listing listing;
    const double listed = seconds_of([&] { listing = list_tree(root); });
    EXPECT_EQ(std::ssize(listing.images) + listing.passed_over.total(), 200000);
    EXPECT_LT(listed, 2);
    std::printf("200,000 files called *%s: listed in %.2f s", extension, listed);
    if (*extension != '\0') {
      EXPECT_LT(seconds_of([&] { EXPECT_EQ(open_images(root).size(), 200000); }), 2);
      const double labelled = seconds_of([&] { EXPECT_EQ(labelled_pair(root, "").train.size(), 100000); });
      EXPECT_LT(labelled, 4);  // with a look at each file: is it among those to learn from?
      std::printf(", with labels in %.2f s", labelled);
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace saccade::data
