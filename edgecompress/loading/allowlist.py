"""What a model file may name: built-in Keras objects that compute and do nothing else.

The lists are written out, not taken from the installed Keras, so that a file is judged before
anything heavy is imported and a class added to Keras later is unknown until it is added here.
Left out on purpose: layers that hold Python code (Lambda), load another model (TFSMLayer,
TorchModuleWrapper, JaxLayer, FlaxLayer) or read a vocabulary from a path in the configuration
(StringLookup, IntegerLookup, TextVectorization).
"""

from __future__ import annotations

MODELS = frozenset({"Functional", "Model", "Sequential"})

LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention Average AveragePooling1D AveragePooling2D
    AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate
    Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D
    ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D
    Discretization Dot Dropout ELU EinsumDense Embedding Flatten GRU GRUCell GaussianDropout
    GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization
    GroupQueryAttention Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MultiHeadAttention
    Multiply Normalization PReLU Permute RMSNormalization RNN RandomBrightness RandomContrast
    RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom ReLU RepeatVector
    Rescaling Reshape Resizing STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN
    SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization
    UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)

INITIALIZERS = frozenset(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones
    Orthogonal RandomNormal RandomUniform STFT STFTInitializer TruncatedNormal VarianceScaling Zeros
    """.split()
)

REGULARIZERS = frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer"})

CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})

ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
    softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
    """.split()
)

UNSAFE = {
    "Lambda": "holds Python code, which is never run",
    "__lambda__": "holds Python code, which is never run",
    "TFSMLayer": "loads another model file",
    "TorchModuleWrapper": "holds pickled Python objects",
    "JaxLayer": "holds Python code, which is never run",
    "FlaxLayer": "holds Python code, which is never run",
    "StringLookup": "may read a file that the model names",
    "IntegerLookup": "may read a file that the model names",
    "TextVectorization": "may read a file that the model names",
}
"""Class name -> why a model that holds it is refused as unsafe."""

GRAPH_OPS = frozenset(
    """
    EagerPyFunc InitializeTableFromTextFile InitializeTableFromTextFileV2 MatchingFiles PyFunc
    PyFuncStateless ReadFile TextLineReader TextLineReaderV2 WholeFileReader WholeFileReaderV2
    WriteFile
    """.split()
)
"""Operators of a SavedModel that run Python or reach for files: such a model is refused."""
