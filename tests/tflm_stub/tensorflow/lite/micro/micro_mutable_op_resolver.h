/* A stub, written by hand, of as much of TFLite Micro's public interface as generated sources use. It
 * lets them compile and run without the library, and computes nothing that a model means.
 * STUB_OPEN and STUB_CLOSE are where its classes live, which changed between releases. */
#ifndef STUB_MICRO_MUTABLE_OP_RESOLVER_H_
#define STUB_MICRO_MUTABLE_OP_RESOLVER_H_

#ifndef TF_LITE_STATIC_MEMORY
#error "the library's makefile lays its structures out by TF_LITE_STATIC_MEMORY"
#endif

#ifndef STUB_OPEN
#define STUB_OPEN namespace tflite {
#define STUB_CLOSE }
#endif

typedef enum { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;

STUB_OPEN
template <unsigned int N>
class MicroMutableOpResolver {
 public:
    virtual ~MicroMutableOpResolver() {}
    unsigned int used = 0;

    TfLiteStatus AddAbs() { return use(); }
    TfLiteStatus AddAdd() { return use(); }
    TfLiteStatus AddAddN() { return use(); }
    TfLiteStatus AddArgMax() { return use(); }
    TfLiteStatus AddArgMin() { return use(); }
    TfLiteStatus AddAssignVariable() { return use(); }
    TfLiteStatus AddAveragePool2D() { return use(); }
    TfLiteStatus AddBatchMatMul() { return use(); }
    TfLiteStatus AddBatchToSpaceNd() { return use(); }
    TfLiteStatus AddBroadcastArgs() { return use(); }
    TfLiteStatus AddBroadcastTo() { return use(); }
    TfLiteStatus AddCallOnce() { return use(); }
    TfLiteStatus AddCast() { return use(); }
    TfLiteStatus AddCeil() { return use(); }
    TfLiteStatus AddCircularBuffer() { return use(); }
    TfLiteStatus AddConcatenation() { return use(); }
    TfLiteStatus AddConv2D() { return use(); }
    TfLiteStatus AddCos() { return use(); }
    TfLiteStatus AddCumSum() { return use(); }
    TfLiteStatus AddDecode() { return use(); }
    TfLiteStatus AddDelay() { return use(); }
    TfLiteStatus AddDepthToSpace() { return use(); }
    TfLiteStatus AddDepthwiseConv2D() { return use(); }
    TfLiteStatus AddDequantize() { return use(); }
    TfLiteStatus AddDetectionPostprocess() { return use(); }
    TfLiteStatus AddDiv() { return use(); }
    TfLiteStatus AddDynamicUpdateSlice() { return use(); }
    TfLiteStatus AddEmbeddingLookup() { return use(); }
    TfLiteStatus AddEnergy() { return use(); }
    TfLiteStatus AddElu() { return use(); }
    TfLiteStatus AddEqual() { return use(); }
    TfLiteStatus AddEthosU() { return use(); }
    TfLiteStatus AddExp() { return use(); }
    TfLiteStatus AddExpandDims() { return use(); }
    TfLiteStatus AddFftAutoScale() { return use(); }
    TfLiteStatus AddFill() { return use(); }
    TfLiteStatus AddFilterBank() { return use(); }
    TfLiteStatus AddFilterBankLog() { return use(); }
    TfLiteStatus AddFilterBankSquareRoot() { return use(); }
    TfLiteStatus AddFilterBankSpectralSubtraction() { return use(); }
    TfLiteStatus AddFloor() { return use(); }
    TfLiteStatus AddFloorDiv() { return use(); }
    TfLiteStatus AddFloorMod() { return use(); }
    TfLiteStatus AddFramer() { return use(); }
    TfLiteStatus AddFullyConnected() { return use(); }
    TfLiteStatus AddGather() { return use(); }
    TfLiteStatus AddGatherNd() { return use(); }
    TfLiteStatus AddGreater() { return use(); }
    TfLiteStatus AddGreaterEqual() { return use(); }
    TfLiteStatus AddHardSwish() { return use(); }
    TfLiteStatus AddIf() { return use(); }
    TfLiteStatus AddIrfft() { return use(); }
    TfLiteStatus AddL2Normalization() { return use(); }
    TfLiteStatus AddL2Pool2D() { return use(); }
    TfLiteStatus AddLeakyRelu() { return use(); }
    TfLiteStatus AddLess() { return use(); }
    TfLiteStatus AddLessEqual() { return use(); }
    TfLiteStatus AddLog() { return use(); }
    TfLiteStatus AddLogicalAnd() { return use(); }
    TfLiteStatus AddLogicalNot() { return use(); }
    TfLiteStatus AddLogicalOr() { return use(); }
    TfLiteStatus AddLogistic() { return use(); }
    TfLiteStatus AddLogSoftmax() { return use(); }
    TfLiteStatus AddMaximum() { return use(); }
    TfLiteStatus AddMaxPool2D() { return use(); }
    TfLiteStatus AddMirrorPad() { return use(); }
    TfLiteStatus AddMean() { return use(); }
    TfLiteStatus AddMinimum() { return use(); }
    TfLiteStatus AddMul() { return use(); }
    TfLiteStatus AddNeg() { return use(); }
    TfLiteStatus AddNotEqual() { return use(); }
    TfLiteStatus AddOverlapAdd() { return use(); }
    TfLiteStatus AddPack() { return use(); }
    TfLiteStatus AddPad() { return use(); }
    TfLiteStatus AddPadV2() { return use(); }
    TfLiteStatus AddPCAN() { return use(); }
    TfLiteStatus AddPrelu() { return use(); }
    TfLiteStatus AddQuantize() { return use(); }
    TfLiteStatus AddReadVariable() { return use(); }
    TfLiteStatus AddReduceAll() { return use(); }
    TfLiteStatus AddReduceMax() { return use(); }
    TfLiteStatus AddReduceMin() { return use(); }
    TfLiteStatus AddRelu() { return use(); }
    TfLiteStatus AddRelu6() { return use(); }
    TfLiteStatus AddReshape() { return use(); }
    TfLiteStatus AddResizeBilinear() { return use(); }
    TfLiteStatus AddResizeNearestNeighbor() { return use(); }
    TfLiteStatus AddReverseV2() { return use(); }
    TfLiteStatus AddRfft() { return use(); }
    TfLiteStatus AddRound() { return use(); }
    TfLiteStatus AddRsqrt() { return use(); }
    TfLiteStatus AddSelectV2() { return use(); }
    TfLiteStatus AddShape() { return use(); }
    TfLiteStatus AddSin() { return use(); }
    TfLiteStatus AddSlice() { return use(); }
    TfLiteStatus AddSoftmax() { return use(); }
    TfLiteStatus AddSpaceToBatchNd() { return use(); }
    TfLiteStatus AddSpaceToDepth() { return use(); }
    TfLiteStatus AddSplit() { return use(); }
    TfLiteStatus AddSplitV() { return use(); }
    TfLiteStatus AddSqueeze() { return use(); }
    TfLiteStatus AddSqrt() { return use(); }
    TfLiteStatus AddSquare() { return use(); }
    TfLiteStatus AddSquaredDifference() { return use(); }
    TfLiteStatus AddStridedSlice() { return use(); }
    TfLiteStatus AddStacker() { return use(); }
    TfLiteStatus AddSub() { return use(); }
    TfLiteStatus AddSum() { return use(); }
    TfLiteStatus AddSvdf() { return use(); }
    TfLiteStatus AddTanh() { return use(); }
    TfLiteStatus AddTransposeConv() { return use(); }
    TfLiteStatus AddTranspose() { return use(); }
    TfLiteStatus AddUnpack() { return use(); }
    TfLiteStatus AddUnidirectionalSequenceLSTM() { return use(); }
    TfLiteStatus AddVarHandle() { return use(); }
    TfLiteStatus AddWhile() { return use(); }
    TfLiteStatus AddWindow() { return use(); }
    TfLiteStatus AddZerosLike() { return use(); }

 private:
    void operator delete(void *) {}
    TfLiteStatus use() {
        return used++ < N ? kTfLiteOk : kTfLiteError;
    }
};
STUB_CLOSE

#endif
