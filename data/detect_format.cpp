#include <fmt/format.h>
#include <saccade/data/decode.h>

#include <algorithm>
#include <cctype>
#include <cstring>

namespace saccade::data {
namespace {

struct Magic {
  Format format;
  size_t at;
  std::string_view bytes;
};

using namespace std::string_view_literals;  // the literals hold zeros

// The first that fits decides.
constexpr Magic kMagics[] = {
    {Format::jpeg, 0, "\xff\xd8\xff"sv},
    {Format::png, 0, "\x89PNG\r\n\x1a\n"sv},
    {Format::gif, 0, "GIF87a"sv},
    {Format::gif, 0, "GIF89a"sv},
    {Format::camera_raw, 8, "CR\2\0"sv},  // Canon's CR2: a TIFF with a mark
    {Format::camera_raw, 0, "FUJIFILMCCD-RAW"sv},
    {Format::camera_raw, 0, "IIRO"sv},  // Olympus
    {Format::camera_raw, 0, "IIRS"sv},
    {Format::camera_raw, 0, "MMOR"sv},
    {Format::camera_raw, 0, "IIU\0"sv},  // Panasonic
    {Format::camera_raw, 0, "FOVb"sv},   // Sigma
    {Format::camera_raw, 0, "\0MRM"sv},  // Minolta
    {Format::camera_raw, 4, "ftypcrx "sv},
    {Format::tiff, 0, "II*\0"sv},
    {Format::tiff, 0, "MM\0*"sv},
    {Format::tiff, 0, "II+\0"sv},
    {Format::tiff, 0, "MM\0+"sv},
    {Format::avif, 4, "ftypavif"sv},
    {Format::avif, 4, "ftypavis"sv},
    {Format::heif, 4, "ftyphe"sv},  // heic, heix, heim, heis, hevc, hevx, hevm, hevs
    {Format::heif, 4, "ftypmif1"sv},
    {Format::heif, 4, "ftypmif2"sv},
    {Format::heif, 4, "ftypmsf1"sv},
    {Format::jpeg_xl, 0, "\xff\x0a"sv},
    {Format::jpeg_xl, 0, "\0\0\0\x0cJXL "sv},
    {Format::jpeg_2000, 0, "\0\0\0\x0cjP  "sv},
    {Format::jpeg_2000, 0, "\xff\x4f\xff\x51"sv},
    {Format::photoshop, 0, "8BPS"sv},
    {Format::openexr, 0, "\x76\x2f\x31\x01"sv},
    {Format::radiance, 0, "#?RADIANCE"sv},
    {Format::radiance, 0, "#?RGBE"sv},
    {Format::pam, 0, "P7\n"sv},
    {Format::pfm, 0, "PF\n"sv},
    {Format::pfm, 0, "Pf\n"sv},
    {Format::qoi, 0, "qoif"sv},
    {Format::dds, 0, "DDS "sv},
    {Format::xcf, 0, "gimp xcf"sv},
    {Format::pdf, 0, "%PDF-"sv},
    {Format::pdf, 0, "%!PS"sv},
    {Format::video, 4, "ftyp"sv},
    {Format::video, 4, "moov"sv},
    {Format::video, 4, "mdat"sv},
    {Format::video, 0, "\x1a\x45\xdf\xa3"sv},
    {Format::video, 0, "\0\0\1\xba"sv},
    {Format::video, 0, "\x30\x26\xb2\x75"sv},
    {Format::lfs_pointer, 0, "version https://git-lfs"sv},
    {Format::apple_double, 0, "\0\5\x16\7"sv},
    {Format::archive, 0, "PK\3\4"sv},
    {Format::archive, 0, "\x1f\x8b"sv},
    {Format::archive, 0, "BZh"sv},
    {Format::archive, 0, "\xfd\x37zXZ"sv},
    {Format::archive, 0, "\x28\xb5\x2f\xfd"sv},
    {Format::archive, 0, "7z\xbc\xaf\x27\x1c"sv},
    {Format::archive, 0, "Rar!"sv},
    {Format::numpy, 0, "\x93NUMPY"sv},
    {Format::hdf5, 0, "\x89HDF\r\n"sv},
};

struct Names {
  Format format;
  std::string_view name;  ///< of the format
  std::string_view what;  ///< with its article, for a sentence
  std::string_view to_do = "convert it to PNG or JPEG";
};

constexpr Names kNames[] = {
    {Format::jpeg, "JPEG", "a JPEG file"},
    {Format::png, "PNG", "a PNG file"},
    {Format::webp, "WebP", "a WebP file"},
    {Format::bmp, "BMP", "a BMP file"},
    {Format::pnm, "PNM", "a PNM file"},
    {Format::gif, "GIF", "a GIF file"},
    {Format::tiff, "TIFF", "a TIFF file"},
    {Format::camera_raw, "camera raw", "a camera's raw file"},
    {Format::heif, "HEIC", "a HEIC file"},
    {Format::avif, "AVIF", "an AVIF file"},
    {Format::jpeg_xl, "JPEG XL", "a JPEG XL file"},
    {Format::jpeg_2000, "JPEG 2000", "a JPEG 2000 file"},
    {Format::svg, "SVG", "an SVG drawing"},
    {Format::photoshop, "Photoshop", "a Photoshop file"},
    {Format::icon, "icon", "an icon or cursor"},
    {Format::openexr, "OpenEXR", "an OpenEXR file"},
    {Format::radiance, "Radiance HDR", "a Radiance HDR file"},
    {Format::pfm, "PFM", "a PFM file (floating point)"},
    {Format::pam, "PAM", "a PAM file"},
    {Format::qoi, "QOI", "a QOI file"},
    {Format::dds, "DDS", "a DDS texture"},
    {Format::xcf, "XCF", "a GIMP file"},
    {Format::pdf, "PDF", "a PDF or PostScript document"},
    {Format::video, "video", "a video", "save its frames as JPEG or PNG"},
    {Format::html, "HTML", "a web page", "download the image itself"},
    {Format::lfs_pointer, "git-lfs pointer", "a git-lfs pointer", "fetch the file it stands for with: git lfs pull"},
    {Format::apple_double, "AppleDouble", "a Mac's AppleDouble file", "delete it, the image is the file without ._"},
    {Format::archive, "archive", "an archive or compressed file", "unpack it"},
    {Format::numpy, "NumPy", "a NumPy array", "save its images as PNG"},
    {Format::hdf5, "HDF5", "an HDF5 file", "save its images as PNG"},
};

const Names* names_of(Format format) {
  const auto* found =
      std::find_if(std::begin(kNames), std::end(kNames), [&](const Names& n) { return n.format == format; });
  return found == std::end(kNames) ? nullptr : found;
}

/// Text that is made for browsers: white space and a byte order mark may come first, letters may be large.
Format markup(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  const auto starts = [&](std::string_view tag) {
    return text.size() >= tag.size() && std::equal(tag.begin(), tag.end(), text.begin(), [](char a, char b) {
             return a == std::tolower(static_cast<unsigned char>(b));
           });
  };
  if (starts("<svg") || starts("<?xml") || starts("<!doctype svg")) return Format::svg;
  if (starts("<!doctype html") || starts("<html") || starts("<head")) return Format::html;
  return Format::unknown;
}

}  // namespace

std::string_view name_of(Format format) {
  const Names* names = names_of(format);
  return names ? names->name : "unknown";
}

std::string advice_on(Format format) {
  const Names* names = names_of(format);
  if (!names) return "the first bytes are those of no known format (JPEG, PNG, WebP, BMP, GIF, TIFF, PBM, PGM or PPM)";
  return fmt::format("{}, which is not read: {}", names->what, names->to_do);
}

Format detect_format(std::span<const uint8_t> bytes) {
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kFormatBytes));
  const auto has = [&](std::string_view magic, size_t at) {
    return start.size() >= at && start.substr(at).starts_with(magic);
  };
  for (const Magic& magic : kMagics)
    if (has(magic.bytes, magic.at)) return magic.format;
  if (has("RIFF", 0)) return has("WEBP", 8) ? Format::webp : has("AVI ", 8) ? Format::video : Format::unknown;
  // Two letters or a few zeros begin many a file: what follows must fit too. BMP: the size of its second header.
  if (has("BM", 0) && start.size() >= 18 && start[14] >= 12 && has("\0\0\0"sv, 15)) return Format::bmp;
  if (start.size() >= 3 && start[0] == 'P' && start[1] >= '1' && start[1] <= '6' &&
      (std::isspace(static_cast<unsigned char>(start[2])) || start[2] == '#')) {
    return Format::pnm;
  }
  if ((has("\0\0\1\0"sv, 0) || has("\0\0\2\0"sv, 0)) && has("\0"sv, 5) && has("\0"sv, 9)) return Format::icon;
  return markup(start);
}

}  // namespace saccade::data
