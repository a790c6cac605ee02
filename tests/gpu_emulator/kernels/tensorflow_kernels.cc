// Stand-ins for TensorFlow's GPU kernels. For each registered GPU kernel whose operator has a CPU
// kernel, a rival of higher priority is registered, which queues the CPU kernel on the device's
// compute stream, over the shadow of the same memory. Shapes come from the operators' shape
// functions. If these do not know a shape, or if a result is on the host, the stand-in waits for
// the stream first. Loaded with tf.load_library, before the first operation.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "device/call_log.h"
#include "device/copy.h"
#include "device/memory.h"
#include "device/stream.h"
#include "tensorflow/core/common_runtime/device.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/public/session_options.h"
#include "tensorflow/core/public/version.h"
#include "xla/stream_executor/stream.h"

namespace gpu_emulator {
namespace {

namespace tf = tensorflow;

/// A separate device for the CPU kernels, which no session has.
tf::Device* hostDevice() {
  static tf::Device* const made = [] {
    tf::SessionOptions options;
    (*options.config.mutable_device_count())["CPU"] = 1;
    return tf::DeviceFactory::NewDevice("CPU", options, "/job:emulated/replica:0/task:0").release();
  }();
  return made;
}

/// An input of a kernel. Device memory is only an address, which keeps nothing alive.
struct Input {
  tf::DataType dtype;
  tf::TensorShape shape;
  void* data = nullptr;  // on the device; null: `host` has the values
  tf::Tensor host = {};

  size_t bytes() const {
    return static_cast<size_t>(shape.num_elements() * tf::DataTypeSize(dtype));
  }

  tf::Tensor onHost() const {
    if (data == nullptr) return host;
    tf::Tensor result(dtype, shape);
    memcpy(result.data(), shadow(data), bytes());
    return result;
  }
};

/// An output: its place on the device, or null.
struct Output {
  void* data;
  size_t bytes;
};

Stream* streamOfKernel(tf::OpKernelContext* context) {
  auto* device = context->op_device_context();
  if (device == nullptr || device->stream() == nullptr) return streamOf(nullptr);
  return streamOf(device->stream()->platform_specific_handle().stream);
}

/// Makes the CPU kernel of an operator.
absl::Status makeHostKernel(tf::NodeDef def, std::shared_ptr<tf::OpKernel>* kernel) {
  def.clear_device();
  std::shared_ptr<const tf::NodeProperties> properties;
  TF_RETURN_IF_ERROR(
      tf::NodeProperties::CreateFromNodeDef(def, tf::OpRegistry::Global(), &properties));
  tf::OpKernel* made = nullptr;
  TF_RETURN_IF_ERROR(tf::CreateOpKernel(
      tf::DEVICE_CPU, hostDevice(), hostDevice()->GetAllocator({}), nullptr,
      hostDevice()->resource_manager(), properties, TF_GRAPH_DEF_VERSION, &made));
  kernel->reset(made);
  return absl::OkStatus();
}

absl::Status runOnHost(tf::OpKernel* kernel, const std::vector<Input>& inputs,
                       std::vector<tf::Tensor>* outputs) {
  std::vector<tf::Tensor> tensors;
  for (const Input& input : inputs) tensors.push_back(input.onHost());
  std::vector<tf::TensorValue> values;
  for (tf::Tensor& tensor : tensors) values.emplace_back(&tensor);
  const auto count = static_cast<size_t>(kernel->num_outputs());
  const std::vector<tf::AllocatorAttributes> of_inputs(inputs.size()), of_outputs(count);
  const std::vector<int> never(count, tf::OpKernelContext::Params::kNeverForward);
  std::function<void(std::function<void()>)> runner = [](const auto& function) { function(); };
  tf::CancellationManager cancellation;
  tf::OpKernelContext::Params params;
  params.op_kernel = kernel;
  params.device = hostDevice();
  params.inputs = values;
  params.input_alloc_attrs = of_inputs;
  params.output_attr_array = of_outputs.data();
  params.forward_from_array = never.data();
  params.resource_manager = hostDevice()->resource_manager();
  params.runner = &runner;
  params.cancellation_manager = &cancellation;
  tf::OpKernelContext context(&params, kernel->num_outputs());
  hostDevice()->Compute(kernel, &context);
  TF_RETURN_IF_ERROR(context.status());
  for (int i = 0; i < kernel->num_outputs(); ++i) {
    const std::unique_ptr<tf::Tensor> made(context.release_output(i).tensor);
    outputs->push_back(made == nullptr ? tf::Tensor() : *made);
  }
  return absl::OkStatus();
}

/// The work of a CPU kernel, which writes its results to the outputs.
std::function<void()> laterOnHost(std::shared_ptr<tf::OpKernel> kernel, std::string name,
                                  std::vector<Input> inputs, std::vector<Output> outputs) {
  return [kernel = std::move(kernel), name = std::move(name), inputs = std::move(inputs),
          outputs = std::move(outputs)] {
    std::vector<tf::Tensor> made;
    const absl::Status status = runOnHost(kernel.get(), inputs, &made);
    if (!status.ok()) {
      fprintf(stderr, "emulated device: %s failed: %s\n", name.c_str(),
              std::string(status.message()).c_str());
      return;
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Output& output = outputs[i];
      if (output.data == nullptr) continue;
      memcpy(shadow(output.data), made[i].data(), std::min(output.bytes, made[i].TotalBytes()));
    }
  };
}

/// Whether the kernel may take over an input's buffer, like TensorFlow's own.
bool takesOverInputs(const std::string& op) {
  static const std::set<std::string> ops = {"Abs",
                                            "Add",
                                            "AddV2",
                                            "BiasAdd",
                                            "Ceil",
                                            "Cos",
                                            "Div",
                                            "Exp",
                                            "Floor",
                                            "Log",
                                            "LogicalAnd",
                                            "LogicalNot",
                                            "LogicalOr",
                                            "Maximum",
                                            "Minimum",
                                            "Mul",
                                            "Neg",
                                            "Pow",
                                            "RealDiv",
                                            "Reciprocal",
                                            "Relu",
                                            "Round",
                                            "Rsqrt",
                                            "Sigmoid",
                                            "Sign",
                                            "Sin",
                                            "Sqrt",
                                            "Square",
                                            "SquaredDifference",
                                            "Sub",
                                            "Tanh"};
  return ops.count(op) != 0;
}

class StandIn : public tf::OpKernel {
 public:
  explicit StandIn(tf::OpKernelConstruction* construction)
      : OpKernel(construction), name_("tf::" + construction->def().op()) {
    OP_REQUIRES_OK(construction, makeHostKernel(construction->def(), &kernel_));
  }

  void Compute(tf::OpKernelContext* context) override {
    Stream* const stream = streamOfKernel(context);
    Work work{name_};
    std::vector<Input> inputs = takeInputs(context, &work);
    std::vector<tf::TensorShape> shapes;
    if (hasHostOutput() || !inferShapes(context, &shapes)) {
      computeNow(context, stream, std::move(work), inputs);
      return;
    }
    std::vector<Output> outputs;
    OP_REQUIRES_OK(context, makeOutputs(context, shapes, &work, &outputs));
    work.run = laterOnHost(kernel_, name_, std::move(inputs), std::move(outputs));
    logCall("operator", stream, "%s", name_.c_str());
    OP_REQUIRES(context, enqueue(stream, std::move(work)) == kSuccess,
                absl::InternalError("the emulated device takes no work"));
  }

 private:
  bool isOnHost(int input) const { return input_memory_types()[input] == tf::HOST_MEMORY; }

  bool hasHostOutput() const {
    const auto& types = output_memory_types();
    return std::count(types.begin(), types.end(), tf::HOST_MEMORY) != 0;
  }

  std::vector<Input> takeInputs(tf::OpKernelContext* context, Work* work) const {
    std::vector<Input> inputs;
    for (int i = 0; i < context->num_inputs(); ++i) {
      const tf::Tensor& tensor = context->input(i);
      Input input{tensor.dtype(), tensor.shape()};
      if (isOnHost(i)) {
        input.host = tensor;
      } else if (tensor.TotalBytes() == 0) {
        input.host = tf::Tensor(tensor.dtype(), tensor.shape());
      } else {
        input.data = tensor.data();
        work->reads.push_back({input.data, input.bytes()});
      }
      inputs.push_back(std::move(input));
    }
    return inputs;
  }

  bool inferShapes(tf::OpKernelContext* context, std::vector<tf::TensorShape>* shapes) const {
    const tf::OpRegistrationData* registered = nullptr;
    if (!tf::OpRegistry::Global()->LookUp(type_string(), &registered).ok()) return false;
    if (!registered->shape_inference_fn) return false;
    std::vector<tf::PartialTensorShape> inputs;
    std::vector<const tf::Tensor*> values;
    for (int i = 0; i < context->num_inputs(); ++i) {
      inputs.emplace_back(context->input(i).shape());
      values.push_back(isOnHost(i) ? &context->input(i) : nullptr);
    }
    tf::shape_inference::InferenceContext inference(TF_GRAPH_DEF_VERSION, tf::AttrSlice(def()),
                                                    registered->op_def, inputs, values, {}, {});
    if (!inference.Run(registered->shape_inference_fn).ok()) return false;
    for (int i = 0; i < context->num_outputs(); ++i) {
      const auto handle = inference.output(i);
      if (!inference.FullyDefined(handle)) return false;
      tf::TensorShape shape;
      for (int d = 0; d < inference.Rank(handle); ++d) {
        shape.AddDim(inference.Value(inference.Dim(handle, d)));
      }
      shapes->push_back(shape);
    }
    return true;
  }

  absl::Status makeOutput(tf::OpKernelContext* context, int i, const tf::TensorShape& shape,
                          tf::Tensor** output) const {
    if (!takesOverInputs(type_string())) return context->allocate_output(i, shape, output);
    std::vector<int> candidates;
    for (int k = 0; k < context->num_inputs(); ++k) {
      const tf::Tensor& input = context->input(k);
      if (input.dtype() == context->expected_output_dtype(i) && input.shape() == shape) {
        candidates.push_back(k);
      }
    }
    return context->forward_input_or_allocate_output(candidates, i, shape, output);
  }

  absl::Status makeOutputs(tf::OpKernelContext* context, const std::vector<tf::TensorShape>& shapes,
                           Work* work, std::vector<Output>* outputs) const {
    for (int i = 0; i < context->num_outputs(); ++i) {
      tf::Tensor* output = nullptr;
      TF_RETURN_IF_ERROR(makeOutput(context, i, shapes[static_cast<size_t>(i)], &output));
      const size_t bytes = output->TotalBytes();
      outputs->push_back({bytes == 0 ? nullptr : output->data(), bytes});
      if (bytes != 0) work->writes.push_back({output->data(), bytes});
    }
    return absl::OkStatus();
  }

  void computeNow(tf::OpKernelContext* context, Stream* stream, Work work,
                  const std::vector<Input>& inputs) {
    logCall("operator, waiting", stream, "%s", name_.c_str());
    enqueue(stream, std::move(work));
    synchronizeStream(stream);
    std::vector<tf::Tensor> made;
    OP_REQUIRES_OK(context, runOnHost(kernel_.get(), inputs, &made));
    for (int i = 0; i < context->num_outputs(); ++i) {
      const tf::Tensor& result = made[static_cast<size_t>(i)];
      tf::Tensor* output = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(i, result.shape(), &output));
      if (output->TotalBytes() == 0) continue;
      if (output_memory_types()[i] == tf::HOST_MEMORY) {
        *output = result;  // strings too
      } else {
        copy(output->data(), result.data(), output->TotalBytes(), stream, CopyCall::kAsynchronous);
      }
    }
  }

  const std::string name_;
  std::shared_ptr<tf::OpKernel> kernel_;
};

/// AssignAddVariableOp and AssignSubVariableOp: in place, or into a new buffer if the variable's
/// buffer has other holders. The CPU's Add or Sub computes the result.
class AssignStandIn : public tf::OpKernel {
 public:
  explicit AssignStandIn(tf::OpKernelConstruction* construction) : OpKernel(construction) {
    const bool adds = construction->def().op() == "AssignAddVariableOp";
    name_ = adds ? "tf::AssignAdd" : "tf::AssignSub";
    tf::NodeDef def;
    def.set_name(construction->def().name());
    def.set_op(adds ? "AddV2" : "Sub");
    def.add_input("variable");
    def.add_input("value");
    (*def.mutable_attr())["T"] = construction->def().attr().at("dtype");
    OP_REQUIRES_OK(construction, makeHostKernel(def, &kernel_));
  }

  void Compute(tf::OpKernelContext* context) override {
    tf::core::RefCountPtr<tf::Var> variable;
    OP_REQUIRES_OK(context,
                   tf::LookupResource(context, tf::HandleFromInput(context, 0), &variable));
    const tf::mutex_lock lock(*variable->mu());
    tf::Tensor* const now = variable->tensor();
    const tf::Tensor& value = context->input(1);
    tf::Tensor target;
    if (now->RefCountIsOne()) {
      target = *now;
    } else {
      OP_REQUIRES_OK(context, context->allocate_temp(now->dtype(), now->shape(), &target));
    }
    if (value.TotalBytes() != 0) {
      const Input before{now->dtype(), now->shape(), now->data()};
      const Input change{value.dtype(), value.shape(), value.data()};
      const Output after{target.data(), target.TotalBytes()};
      enqueue(streamOfKernel(context),
              {name_,
               {{before.data, before.bytes()}, {change.data, change.bytes()}},
               {{after.data, after.bytes}},
               laterOnHost(kernel_, name_, {before, change}, {after})});
    }
    *now = target;
  }

 private:
  std::string name_;
  std::shared_ptr<tf::OpKernel> kernel_;
};

/// Operators whose real GPU kernels run, because they launch nothing on the device, and operators
/// for which no CPU kernel can stand in: control flow, functions, communication.
bool runsItself(const std::string& op) {
  static const std::set<std::string> ops = {"Assert",
                                            "Bitcast",
                                            "Case",
                                            "CheckNumerics",
                                            "CheckNumericsV2",
                                            "Const",
                                            "ControlTrigger",
                                            "Copy",
                                            "CopyHost",
                                            "DeepCopy",
                                            "EagerPyFunc",
                                            "Empty",
                                            "EnsureShape",
                                            "ExpandDims",
                                            "HostConst",
                                            "If",
                                            "InplaceUpdate",
                                            "IsVariableInitialized",
                                            "LoopCond",
                                            "NoOp",
                                            "ParallelConcat",
                                            "PartitionedCall",
                                            "Placeholder",
                                            "PlaceholderV2",
                                            "PlaceholderWithDefault",
                                            "PreventGradient",
                                            "Print",
                                            "PrintV2",
                                            "PyFunc",
                                            "PyFuncStateless",
                                            "Rank",
                                            "ReadVariableOp",
                                            "RemoteCall",
                                            "Reshape",
                                            "Shape",
                                            "ShapeN",
                                            "Size",
                                            "Snapshot",
                                            "Squeeze",
                                            "StatefulPartitionedCall",
                                            "StatelessCase",
                                            "StatelessIf",
                                            "StatelessWhile",
                                            "StopGradient",
                                            "SymbolicGradient",
                                            "Timestamp",
                                            "VarIsInitializedOp",
                                            "While",
                                            "XlaLaunch",
                                            "_ParallelConcatStart",
                                            "_ParallelConcatUpdate"};
  static const std::vector<std::string> prefixes = {"Barrier",
                                                    "Collective",
                                                    "ConditionalAccumulator",
                                                    "Cudnn",
                                                    "Debug",
                                                    "Enter",
                                                    "Exit",
                                                    "FIFO",
                                                    "Identity",
                                                    "Merge",
                                                    "Nccl",
                                                    "NextIteration",
                                                    "Queue",
                                                    "RefEnter",
                                                    "RefExit",
                                                    "RefMerge",
                                                    "RefNextIteration",
                                                    "RefSwitch",
                                                    "Switch",
                                                    "_Arg",
                                                    "_DeviceArg",
                                                    "_DeviceRetval",
                                                    "_Fused",
                                                    "_Host",
                                                    "_Nccl",
                                                    "_Recv",
                                                    "_Retval",
                                                    "_Scoped",
                                                    "_Send",
                                                    "_SwitchN",
                                                    "_TfrtOrXla",
                                                    "_Xla"};
  const auto begins = [&](const std::string& prefix) { return op.rfind(prefix, 0) == 0; };
  return ops.count(op) != 0 || std::any_of(prefixes.begin(), prefixes.end(), begins);
}

bool isAssign(const std::string& op) {
  return op == "AssignAddVariableOp" || op == "AssignSubVariableOp";
}

/// Whether it only takes and returns tensors, some of them on the device.
bool isPlain(const tf::KernelDef& kernel, const tf::OpDef& op) {
  const std::set<std::string> on_host(kernel.host_memory_arg().begin(),
                                      kernel.host_memory_arg().end());
  bool on_device = false;
  for (const auto* arguments : {&op.input_arg(), &op.output_arg()}) {
    for (const auto& argument : *arguments) {
      const bool handle = argument.type() == tf::DT_RESOURCE || argument.type() == tf::DT_VARIANT;
      if (handle || argument.is_ref()) return false;
      on_device |= on_host.count(argument.name()) == 0;
    }
  }
  return on_device;
}

template <typename Kernel>
void registerRival(const tf::KernelDef& kernel, const char* name) {
  auto* rival = new tf::KernelDef(kernel);  // the registry takes it over
  rival->set_priority(kernel.priority() + 1);
  const tf::kernel_factory::OpKernelRegistrar registrar(
      rival, name, [](tf::OpKernelConstruction* construction) -> tf::OpKernel* {
        return new Kernel(construction);
      });
}

int install() {
  if (deviceCount() == 0) return 0;
  const tf::KernelList all = tf::GetAllRegisteredKernels();
  std::set<std::string> on_host;
  for (const tf::KernelDef& kernel : all.kernel()) {
    if (kernel.device_type() == "CPU") on_host.insert(kernel.op());
  }
  int count = 0;
  for (const tf::KernelDef& kernel : all.kernel()) {
    if (kernel.device_type() != "GPU") continue;
    const tf::OpRegistrationData* op = nullptr;
    if (!tf::OpRegistry::Global()->LookUp(kernel.op(), &op).ok()) continue;
    if (isAssign(kernel.op())) {
      registerRival<AssignStandIn>(kernel, "AssignStandIn");
    } else if (on_host.count(kernel.op()) != 0 && !runsItself(kernel.op()) &&
               isPlain(kernel, op->op_def)) {
      registerRival<StandIn>(kernel, "StandIn");
    } else {
      continue;
    }
    ++count;
  }
  return count;
}

const int g_count = install();

}  // namespace
}  // namespace gpu_emulator

extern "C" EMU_EXPORT int emu_tf_kernels() { return gpu_emulator::g_count; }
