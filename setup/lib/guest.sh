# shellcheck shell=bash
guest_prepare() { :; }
guest_current() { :; }
guest_fetch() { :; }
