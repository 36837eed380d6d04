"""One worker process: it runs jobs and says what became of them.

supervisor ──socket──▶ reader thread ──inbox──▶ main thread: handler ──▶ outcomes ──socket──▶ supervisor
                                                    └──▶ blame slot
"""
