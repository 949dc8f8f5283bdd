"""All jobs of an ablation, on one process for each processor. What is done already is not done again."""

import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path

from tqdm import tqdm

from ..data.corpora import encode_corpus
from .jobs import TIME, TUNING, Job, compute, due, time_in_turn
from .results import Results
from .variants import CLOSE_UPS, name_of, variants


def sources(corpora, tokenizer=None, vocab_size=512):
    """{name: arguments of encode_corpus} of corpora as `train --data` takes them

    Without a choice of tokenizer a single file is read by characters, and all else by a BPE of vocab_size tokens.
    """
    found = {}
    for data in corpora:
        name = Path(data).stem.encode("utf-8", errors="backslashreplace").decode("utf-8")  # as it is shown
        kind = tokenizer or ("char" if data != "stories" and Path(data).is_file() else "bpe")
        if name in found:
            raise ValueError(f"two corpora are called {name!r}, and results are kept by that name; rename one of them")
        found[name] = {"data": str(data), "tokenizer": kind, "vocab_size": vocab_size}
    return found


def run(protocol, studies, sources, seeds, folder, processes=1, part=(1, 1), quiet=False, only=None):
    """Do all jobs of these studies that are not in the folder yet, or part (i, n) of them; returns the Results

    seeds: how many; they are 0, 1, ... only: the fields that variants may change (see `variants`). A part has whole
    groups of a variant and a corpus, so that a learning rate is chosen in one place, and writes a file of its own.
    """
    which, parts = part
    if not 1 <= which <= parts:
        raise ValueError(f"a part is i/n, i from 1 to n; received {which}/{parts}")
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1; received {seeds}")
    file = "results.jsonl" if parts == 1 else f"results-{which}-of-{parts}.jsonl"
    results = Results(folder, file, protocol.to_dict())
    groups = []
    for name, source in sources.items():
        corpus = encode_corpus(**source)
        results.check_data(name, corpus.fingerprint)
        for changes in variants(studies, protocol.base(corpus.tokenizer.vocab_size), only):
            protocol.plan(changes, corpus.tokenizer.vocab_size)  # what cannot be done is an error before all else
            groups.append((changes, name))
    with results.adding():
        with process_pool(processes) as pool:
            mine = groups[which - 1 :: parts]
            run_jobs(protocol, mine, sources, range(seeds), results, processes, pool, quiet, compute)
        if which == 1:  # when the processors are free
            _time(protocol, groups, sources, results)
    return results


def _time(protocol, groups, sources, results):
    """Measure the time of a step of the variants that are looked at closely."""
    sides = [changes for _, pair in CLOSE_UPS.values() for changes in pair.values()]
    for name, source in sources.items():
        variants = [changes for changes, corpus in groups if corpus == name and changes in sides]
        jobs = [Job(TIME, changes, name, 0, protocol.settings.lr) for changes in variants]
        if len(jobs) > 1 and any(job.key not in results.by_key for job in jobs):
            for result in time_in_turn(protocol, source, jobs):
                results.add(result)


def run_jobs(protocol, groups, sources, seeds, results, processes, pool, quiet, work):
    """Do all jobs of these groups, each a variant and a corpus, that are not in the results yet

    work(protocol, source, job) -> result of a job.
    """
    running = {}  # future: key of its job
    with tqdm(unit="job", dynamic_ncols=True, disable=quiet) as bar:
        while True:
            waiting = [job for group in groups for job in due(protocol, *group, seeds, results.by_key)]
            untuned = {(name_of(job.changes), job.corpus) for job in waiting if job.kind == TUNING}
            bar.total = bar.n + len(waiting) + len(untuned) * len(seeds)  # at least: a grid may be extended
            for job in waiting:
                if len(running) < processes and job.key not in running.values():
                    running[pool.submit(work, protocol, sources[job.corpus], job)] = job.key
            if not running:
                return
            try:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    results.add(future.result())
                    bar.update()
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    "a process of the ablation was killed, perhaps for want of memory. All finished results are kept; "
                    "give the same command again to go on"
                ) from error


def process_pool(processes):
    """What runs functions on so many processes; with one, at once and in this process."""
    return ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent) if processes > 1 else _Here()


def _end_with_parent():
    """See to it that this process ends when the one that started it does, even if that is killed."""

    def watch():
        wait_for_any([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Here:
    """Does at once, in this process, what it is asked for."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future
