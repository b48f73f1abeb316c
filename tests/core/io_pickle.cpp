// Pickles that want something done which is not reading weights: each refused, with what it wanted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/pickle.h>
#include <saccade/core/io/pickle_opcodes.h>
#include <saccade/core/io/weight_file.h>
#include <saccade/kernels/error.h>

#include "support/pickles.h"
#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using namespace test::pickled;
using namespace std::string_literals;
using test::bytes_of;
using test::complaint;
using test::torch_file;
using testing::HasSubstr;

std::string refusal(const std::string& bytes) {
  return complaint<Error>(
      [&] { read_weights(ByteSource(std::span<const char>(bytes.data(), bytes.size())), "bytes.pth"); });
}

struct Case {
  std::string what, pickle, reason;
};

/// Each both as a file of its own and within an archive of PyTorch's.
void expect_refused(const std::vector<Case>& cases) {
  for (const auto& [what, pickle, reason] : cases) {
    SCOPED_TRACE(what);
    EXPECT_THAT(refusal(pickle), HasSubstr(reason));
    EXPECT_THAT(refusal(torch_file(pickle)), HasSubstr(reason));
  }
}

TEST(Pickle, NothingIsCalledThatIsNoPartOfWeights) {
  const std::string argument = text("touch /tmp/pwned");
  std::vector<Case> cases;
  for (const auto& [module, name] : std::vector<std::pair<std::string, std::string>>{
           {"posix", "system"},
           {"os", "system"},
           {"nt", "system"},
           {"os", "popen"},
           {"subprocess", "Popen"},
           {"subprocess", "check_output"},
           {"builtins", "eval"},
           {"builtins", "exec"},
           {"builtins", "compile"},
           {"builtins", "getattr"},
           {"builtins", "__import__"},
           {"builtins", "open"},
           {"builtins", "globals"},
           {"__builtin__", "eval"},
           {"__builtin__", "execfile"},
           {"__builtin__", "getattr"},
           {"importlib", "import_module"},
           {"runpy", "_run_code"},
           {"pickle", "loads"},
           {"_pickle", "loads"},
           {"dill._dill", "_create_function"},
           {"cloudpickle.cloudpickle", "_make_skeleton_class"},
           {"marshal", "loads"},
           {"types", "CodeType"},
           {"types", "FunctionType"},
           {"functools", "partial"},
           {"operator", "attrgetter"},
           {"operator", "methodcaller"},
           {"copyreg", "_reconstructor"},
           {"copy_reg", "_reconstructor"},
           {"copyreg", "__newobj__"},
           {"ctypes", "CDLL"},
           {"socket", "create_connection"},
           {"urllib.request", "urlopen"},
           {"requests.api", "get"},
           {"webbrowser", "open"},
           {"pty", "spawn"},
           {"shutil", "rmtree"},
           {"timeit", "timeit"},
           {"bdb", "Bdb"},
           {"code", "InteractiveInterpreter"},
           {"asyncio.unix_events", "_UnixSubprocessTransport"},
           {"logging.config", "listen"},
           {"multiprocessing.util", "spawnv_passfds"},
           {"numpy", "load"},
           {"numpy", "fromfile"},
           {"numpy.testing._private.utils", "runstring"},
           {"numpy.f2py.crackfortran", "getlincoef"},
           {"torch", "load"},
           {"torch", "from_file"},
           {"torch.hub", "load"},
           {"torch.jit", "load"},
           {"torch.storage", "_load_from_bytes"},
           {"torch.utils._config_module", "ConfigModule"},
           {"torch.serialization", "load"},
           {"torch._dynamo.guards", "GuardBuilder"},
           {"torch._inductor.codecache", "PyCodeCache"},
           {"torch.fx.graph", "CodeGen"},
           {"torch.fx.graph_module", "reduce_graph_module"},
           {"torch._utils", "_rebuild_tensor_v9"},
           {"torch._utils", "_rebuild_tensor_v2.__globals__"},
           {"collections", "OrderedDict.update"},
           {"collections ", "OrderedDict"},
           {"Collections", "OrderedDict"},
       })
    cases.push_back(
        {module + "." + name, file(call(module, name, {argument})), "\""s + module + "." + name + "\" call"});
  EXPECT_GE(cases.size(), 60u);
  expect_refused(cases);
}

TEST(Pickle, NoWayOfCallingGetsAroundIt) {
  const std::string evil = global("posix", "system"), argument = text("id");
  const std::string on_stack = text("posix") + text("system") + "\x93";
  expect_refused({
      {"STACK_GLOBAL", file(on_stack + "(" + argument + "tR"), "\"posix.system\" called"},
      {"NEWOBJ", file(evil + argument + "\x85\x81"), "\"posix.system\" built"},
      {"NEWOBJ_EX", file(evil + argument + "\x85}\x92"), "\"posix.system\" built"},
      {"NEWOBJ_EX with names", file(evil + argument + "\x85}" + argument + argument + "s\x92"), "\"posix.system\""},
      {"INST", file("("s + argument + "iposix\nsystem\n"), "\"posix.system\" built"},
      {"OBJ", file("("s + evil + argument + "o"), "\"posix.system\" built"},
      {"BUILD of a name", file(evil + "}b"), "\"posix.system\""},
      {"out of the memo",
       file(evil +
            "q\x01"
            "0h\x01" +
            argument + "\x85R"),
       "\"posix.system\" called"},
      {"within a dictionary", file(dictionary({text("w"), evil + argument + "\x85R"})), "\"posix.system\" called"},
      {"as an argument of what is allowed",
       file(call("collections", "OrderedDict", {call("posix", "system", {argument})})), "\"posix.system\" called"},
      {"as what makes the values of a defaultdict", file(call("collections", "defaultdict", {evil})),
       "\"posix.system\" called"},
      {"as what rebuilds a tensor",
       file(call("torch._tensor", "_rebuild_from_type_v2", {evil, global("torch", "Tensor"), tuple({argument}), "}"})),
       "\"posix.system\" called"},
      {"as the type of a storage", file(tuple({text("storage"), evil, text("0"), text("cpu"), number(6)}) + "Q"),
       "\"posix.system\" for the type of a storage"},
      {"a name with a line break in it", file(text("posix\n") + text("system") + "\x93" + argument + "\x85R"),
       "\"posix\\n.system\" called"},
      {"what is called is a text", file(argument + argument + "\x85R"), "a text called, which is no name"},
      {"what is called is a dictionary", file("}"s + argument + "\x85R"), "a dictionary called"},
      {"arguments that are no tuple", file(evil + argument + "R"), "a text for arguments"},
      {"a name made of numbers", file("K\1K\2\x93"), "a name that is no text"},
      {"EXT1", file("\x82\x01"), "EXT1) wants something called that only the program knows"},
      {"EXT2", file("\x83\x01\x01"), "EXT2) wants"},
      {"EXT4", file("\x84\x01\x01\x01\x01"), "EXT4) wants"},
      {"PERSID", file("Pposix.system\n"), "refers to \"posix.system\", which is no storage"},
      {"BINPERSID of a text", file(argument + "Q"), "its persistent id is none of PyTorch's"},
      {"BINPERSID of another kind", file(tuple({text("file"), argument}) + "Q"), "for \"file\", not for a storage"},
      {"BINPERSID with too little", file(tuple({text("storage"), argument}) + "Q"), "lacks type, key"},
      {"a module whole", file(global("torchvision.models.resnet", "ResNet") + ")\x81}b"), "save the state dict alone"},
      {"NEXT_BUFFER", file("\x97"), "a buffer from outside"},
      {"READONLY_BUFFER", file(argument + "\x98"), "a buffer from outside"},
  });
  // Protocol 0 has no magic number.
  EXPECT_THAT(refusal("cposix\nsystem\n(S'id'\ntR."), HasSubstr("\"posix.system\" called"));
  EXPECT_THAT(refusal("(S'id'\niposix\nsystem\n."), HasSubstr("\"posix.system\" built"));
}

TEST(Pickle, EveryInstructionThatFindsNothingIsRefused) {
  // All that take something from the stack, from the memo, or back to a mark.
  const std::vector<std::string> instructions = {
      ".",    "0",    "1",    "2",    "a",          "b",    "d",    "e",    "g0\n", "h\0"s,   "j\0\0\0\0"s,
      "l",    "o",    "p0\n", "q\0"s, "r\0\0\0\0"s, "s",    "t",    "u",    "Q",    "R",      "\x81",
      "\x85", "\x86", "\x87", "\x90", "\x91",       "\x92", "\x93", "\x94", "\x98", "ia\nb\n"};
  for (const std::string& each : instructions) {
    SCOPED_TRACE(testing::PrintToString(each));
    for (const std::string& before : {""s, "("s, "(("s, "N("s}) {
      // Back to the mark there may be nothing to take and yet nothing wrong.
      const bool to_mark =
          "01dltui\x91"
          "e\x90"s.find(each[0]) != std::string::npos &&
          !before.empty();
      const std::string why = refusal("\x80\x02"s + before + each + ".");
      if (!to_mark) {
        EXPECT_THAT(why, HasSubstr("byte ")) << before;
      }
      EXPECT_NE(why, "") << before;
    }
  }
}

TEST(Pickle, ContainersAreWhatTheyAre) {
  // CVE-2026-24747: an item set in what is no dictionary
  expect_refused({
      {"SETITEM on a tensor", file(tensor({}) + "K\1K\2s"), "sets an item of a tensor, which is no dictionary"},
      {"SETITEM on a storage", file(storage("FloatStorage", "0", 6) + "K\1K\2s"), "sets an item of a storage"},
      {"SETITEM on a list", file("]K\1K\2s"), "sets an item of a list"},
      {"SETITEM on a tuple", file(")K\1K\2s"), "sets an item of a tuple"},
      {"SETITEM on a text", file(text("a") + "K\1K\2s"), "sets an item of a text"},
      {"SETITEM on None", file("NK\1K\2s"), "sets an item of None"},
      {"SETITEM on a name", file(global("torch", "float32") + "K\1K\2s"), "sets an item of a name"},
      {"SETITEMS on a tensor", file(tensor({}) + "(K\1K\2u"), "sets an item of a tensor"},
      {"SETITEMS without a value", file("}(K\1u"), "a key without a value"},
      {"DICT without a value", file("(K\1d"), "a key without a value"},
      {"APPEND to a dictionary", file("}K\1a"), "appends to a dictionary"},
      {"APPENDS to a tensor", file(tensor({}) + "(K\1e"), "appends to a tensor"},
      {"ADDITEMS to a number", file("K\1(K\1\x90"), "appends to a number"},
      {"BUILD of a number", file("K\1}b"), "the state of something changed that has none"},
      {"BUILD of a storage", file(storage("FloatStorage", "0", 6) + "}b"), "the state of something changed"},
      {"BUILD of a record with a list", file(global("argparse", "Namespace") + ")\x81]b"), "attributes that are no"},
      {"BUILD of a record with itself", file(global("argparse", "Namespace") + ")\x81q\1h\1b"), "itself for its"},
      {"a MARK left at the end", file("(N"), "stops between a MARK"},
  });
}

TEST(Pickle, SizesThatNoFileHasAreRefusedWithoutMemory) {
  const std::string much = bytes_of(uint64_t{1} << 62), four = bytes_of(uint32_t{0xffffffff});
  expect_refused({
      {"BINUNICODE", file("X"s + four), "(BINUNICODE) wants 4294967295 bytes more"},
      {"BINUNICODE8", file("\x8d"s + much), "(BINUNICODE8) wants 4611686018427387904 bytes more"},
      {"BINBYTES", file("B"s + four), "(BINBYTES) wants"},
      {"BINBYTES8", file("\x8e"s + much), "(BINBYTES8) wants"},
      {"BYTEARRAY8", file("\x96"s + much), "(BYTEARRAY8) wants"},
      {"BINSTRING", file("T"s + four), "(BINSTRING) wants"},
      {"LONG4", file("\x8b"s + four), "(LONG4) wants"},
      {"LONG1", file("\x8a\xff"), "(LONG1) wants 255 bytes more"},
      {"FRAME", file("\x95"s + much), "a frame that ends behind it"},
      {"LONG_BINPUT", file("Nr"s + four), "into place 4294967295 of its memo, where 0 are taken"},
      {"PUT", file("Np99999999999999\n"), "into place 99999999999999 of its memo"},
      {"PUT negative", file("Np-1\n"), "\"-1\" for a number"},
      {"GET negative", file("Ng-1\n"), "\"-1\" for a number"},
      {"BINGET of nothing", file("Nq\5h\3"), "place 3 of its memo holds: nothing"},
      {"INT too large", file("I99999999999999999999\n"), "\"99999999999999999999\" for a number"},
      {"FLOAT of letters", file("Fone\n"), "\"one\" for a number"},
      {"protocol 6", "\x80\x06N.", "protocol 6"},
      {"no instruction", file("N\xff"), "0xff, which is no instruction"},
      {"escapes", file("S'\\x41'\n"), "a text with escapes"},
      {"STRING without quotes", file("Sabc\n"), "lacks its quotes"},
      {"no STOP", "\x80\x02N", "ends before it stops"},
      {"marks", file(std::string(100'000, '(')), "nests more than 1000 deep"},
      {"marks that close", file(std::string(5000, '(') + std::string(5000, 't')), "nests more than 1000 deep"},
      {"tuples in tuples", file(")"s + std::string(5000, '\x85')), "nests more than 100 deep"},
      {"a list in itself", file("]q\1h\1a"), "holds itself"},
      {"a dictionary in itself", file("}q\1"s + text("a") + "h\1s"), "holds itself"},
      {"a record in itself", file(global("argparse", "Namespace") + ")\x81q\1}" + text("a") + "h\1sb"), "holds itself"},
  });
}

TEST(Pickle, AFewBytesCannotTakeMuchMemory) {
  std::string doubling = "]q\1";  // each list holds the one before twice
  for (char i = 1; i < 60; ++i) doubling += "]q"s + static_cast<char>(i + 1) + "(h" + i + "h" + i + "e";
  std::string squared = "]("s + std::string(30'000, 'N') + "eq\1" + "0(";  // a set of 30,000 made 30,000 times
  for (int i = 0; i < 30'000; ++i) squared += global("builtins", "set") + "h\1\x85R";
  std::string texts = text(std::string(60'000, 'a') + "\xc3\xbf") + "q\1" + text("latin1") + "q\2" + "00(";
  for (int i = 0; i < 30'000; ++i) texts += global("_codecs", "encode") + "h\1h\2\x86R";
  std::string views = "("s + tensor({}) + "q\1";
  for (int i = 0; i < 30'000; ++i)
    views += call("torch._utils", "_rebuild_tensor",
                  {storage("FloatStorage", "0", 6), "K\0"s, "(K\xffK\xffK\xfft", "(K\0K\0K\0t"s});
  const std::string reason = "MiB of memory, which no file of its size should";
  EXPECT_THAT(refusal(file("("s + std::string(4'000'000, ']') + "t")), HasSubstr(reason));
  EXPECT_THAT(refusal(file(doubling)), HasSubstr(reason));
  EXPECT_THAT(refusal(file(squared + "t")), HasSubstr(reason));
  EXPECT_THAT(refusal(file(texts + "t")), HasSubstr(reason));
  EXPECT_THAT(refusal(torch_file(file(views + "t"))), HasSubstr(reason));
  EXPECT_THAT(refusal(torch_file(file(tensor({.shape = {1 << 20, 1 << 20}, .strides = {0, 0}})))), HasSubstr(reason));
}

TEST(Pickle, TensorsLieWithinTheirStorage) {
  const auto refused = [](const TensorParts& parts) {
    return refusal(torch_file(file(dictionary({text("w"), tensor(parts)}))));
  };
  constexpr int64_t huge = int64_t{1} << 62;
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({.offset = 5, .shape = {}, .strides = {}}), "");
  EXPECT_EQ(refused({.shape = {2, 3}, .strides = {0, 0}}), "");
  EXPECT_EQ(refused({.shape = {0, huge}, .strides = {huge, huge}}), "");
  EXPECT_EQ(refused({.shape = {3, 1}, .strides = {2, huge}}), "");
  EXPECT_THAT(refused({.offset = 1}), HasSubstr("6 elements for a tensor that takes element 6"));
  EXPECT_THAT(refused({.offset = 6, .shape = {}, .strides = {}}), HasSubstr("takes element 6"));
  EXPECT_THAT(refused({.offset = -1}), HasSubstr("the negative number -1"));
  EXPECT_THAT(refused({.offset = std::numeric_limits<int64_t>::max()}), HasSubstr("no memory has room"));
  EXPECT_THAT(refused({.strides = {4, 1}}), HasSubstr("takes element 6"));
  EXPECT_THAT(refused({.strides = {-3, 1}}), HasSubstr("size or stride that is no whole number"));
  EXPECT_THAT(refused({.shape = {-2, 3}}), HasSubstr("size or stride that is no whole number"));
  EXPECT_THAT(refused({.shape = {6}}), HasSubstr("more or fewer strides than sizes"));
  EXPECT_THAT(refused({.shape = {huge, 8}, .strides = {1, 1}}), HasSubstr("takes element"));
  EXPECT_THAT(refused({.shape = {huge, 8}, .strides = {0, 0}}), HasSubstr("more elements than can be counted"));
  EXPECT_THAT(refused({.shape = {3, 3}, .strides = {huge, 1}}), HasSubstr("no memory has room"));
  EXPECT_THAT(refused({.shape = {3, 3, 3}, .strides = {huge / 2, huge / 2, huge / 2}}),
              HasSubstr("no memory has room"));
  EXPECT_THAT(refused({.shape = std::vector<int64_t>(65, 1), .strides = std::vector<int64_t>(65, 1)}),
              HasSubstr("more than 64 dimensions"));
  // The number of elements is the pickle's word; the entry has 24 bytes.
  EXPECT_THAT(refused({.numel = 7}), HasSubstr("storage \"0\" of 7 elements has 24 bytes only"));
  EXPECT_THAT(refused({.numel = huge, .shape = {huge}, .strides = {1}}), HasSubstr("24 bytes only"));
  EXPECT_THAT(refused({.numel = huge, .offset = huge - 1, .shape = {}, .strides = {}}), HasSubstr("24 bytes only"));
  EXPECT_THAT(refused({.numel = -1}), HasSubstr("gives -1 elements"));
  EXPECT_THAT(
      refusal(torch_file(file(dictionary({text("w"), tensor({}), text("s"), storage("FloatStorage", "0", huge)})))),
      HasSubstr("24 bytes only"));
  EXPECT_THAT(refused({.type = "DoubleStorage"}), HasSubstr("6 elements has 24 bytes only"));
  EXPECT_THAT(refused({.key = "1"}), HasSubstr("storage \"1\" is not in the file"));
  EXPECT_THAT(refused({.key = "../data.pkl"}), HasSubstr("is not in the file"));
}

TEST(Pickle, TensorsThatCannotBeAreRefusedByName) {
  for (const char* type :
       {"ComplexFloatStorage", "ComplexDoubleStorage", "QInt8Storage", "QUInt8Storage", "StrangeStorage"})
    EXPECT_THAT(refusal(torch_file(file(tensor({.type = type})))),
                HasSubstr("the type \"torch."s + type + "\", which no tensor here can hold"));
  const auto called = [](const char* module, const char* name) {
    return refusal(torch_file(file(call(module, name, {storage("FloatStorage", "0", 6)}))));
  };
  EXPECT_THAT(called("torch._utils", "_rebuild_qtensor"), HasSubstr("a quantized tensor"));
  EXPECT_THAT(called("torch._utils", "_rebuild_sparse_tensor"), HasSubstr("a sparse tensor: save tensor.to_dense()"));
  EXPECT_THAT(called("torch._utils", "_rebuild_sparse_csr_tensor"), HasSubstr("a sparse tensor"));
  EXPECT_THAT(called("torch._utils", "_rebuild_nested_tensor"), HasSubstr("a nested tensor"));
  EXPECT_THAT(called("torch._utils", "_rebuild_meta_tensor_no_storage"), HasSubstr("which has no values"));
  EXPECT_THAT(called("torch._utils", "_rebuild_wrapper_subclass"), HasSubstr("spread over processes"));
  EXPECT_THAT(called("torch._utils", "_rebuild_tensor_v2"), HasSubstr("with 1 arguments only"));
  EXPECT_THAT(called("torch._utils", "_rebuild_parameter"), HasSubstr("an argument 1 that is of another kind"));
  EXPECT_THAT(called("torch.distributed.checkpoint.metadata", "Metadata"), HasSubstr("dcp_to_torch"));
  const auto of_type = [](const std::string& storage, const std::string& type) {
    return refusal(torch_file(file(dictionary(
        {text("w"), call("torch._utils", "_rebuild_tensor_v3",
                         {storage, "K\0"s, numbers({3}), numbers({1}), "\x89", "N", global("torch", type)})}))));
  };
  EXPECT_EQ(of_type(storage("UntypedStorage", "0", 24), "uint16"), "");
  EXPECT_EQ(of_type(storage("UntypedStorage", "0", 24), "uint64"), "");
  EXPECT_THAT(of_type(storage("UntypedStorage", "0", 23), "uint64"), HasSubstr("2 elements for a tensor that takes"));
  EXPECT_THAT(of_type(storage("UntypedStorage", "0", 24), "float8_e4m3fn"),
              HasSubstr("the type \"torch.float8_e4m3fn\""));
  EXPECT_THAT(of_type(storage("FloatStorage", "0", 6), "uint64"), HasSubstr("a storage of another type"));
  EXPECT_THAT(refusal(torch_file(file(tensor({.type = "UntypedStorage"})))), HasSubstr("a storage without a type"));
  const std::string negated = call("torch._utils", "_rebuild_tensor_v2",
                                   {storage("FloatStorage", "0", 6), "K\0"s, numbers({3}), numbers({1}), "\x89", "}",
                                    dictionary({text("neg"), "\x88"})});
  EXPECT_THAT(refusal(torch_file(file(negated))), HasSubstr("whose sign is turned"));
}

TEST(Pickle, ArraysOfNumPyAreAsLongAsTheySay) {
  const auto type = [](const char* name, const char* order) {
    return call("numpy", "dtype", {text(name), "\x89", "\x88"}) + tuple({"K\3", text(order), "N", "N", "N", "K\0"s}) +
           "b";
  };
  const auto array = [&](const std::string& dtype, const std::vector<int64_t>& shape, size_t bytes) {
    const std::string data = "C"s + std::string(1, static_cast<char>(bytes)) + std::string(bytes, '\1');
    return refusal(file(dictionary({text("w"), call("numpy.core.multiarray", "_reconstruct",
                                                    {global("numpy", "ndarray"), numbers({0}), text("b")}) +
                                                   tuple({"K\1", numbers(shape), dtype, "\x89", data}) + "b"})));
  };
  EXPECT_EQ(array(type("f4", "<"), {2, 3}, 24), "");
  EXPECT_THAT(array(type("f4", "<"), {2, 3}, 23), HasSubstr("23 bytes for 6 elements of F32"));
  EXPECT_THAT(array(type("f4", "<"), {2, 4}, 24), HasSubstr("24 bytes for 8 elements"));
  EXPECT_THAT(array(type("f4", "<"), {int64_t{1} << 40, int64_t{1} << 40}, 24), HasSubstr("no memory has room"));
  EXPECT_THAT(array(type("f4", ">"), {2, 3}, 24), HasSubstr("big-endian"));
  EXPECT_THAT(array(type(">f4", "<"), {2, 3}, 24), HasSubstr("big-endian"));
  EXPECT_THAT(array(type("O8", "|"), {3}, 24), HasSubstr("holds no tensor"));
  EXPECT_THAT(refusal(file(call("numpy.core.multiarray", "scalar", {type("f8", "<"), "C\3abc"}))),
              HasSubstr("a number of another size"));
  EXPECT_THAT(refusal(file(call("_codecs", "encode", {text("a"), text("rot13")}))),
              HasSubstr("the encoding \"rot13\""));
  EXPECT_THAT(refusal(file(call("_codecs", "encode", {text("\xe4\xb8\x96"), text("latin1")}))),
              HasSubstr("not Latin 1"));
}

}  // namespace
}  // namespace saccade::io
